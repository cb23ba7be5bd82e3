/* Start of the processor, vector table, faults, and protection of memory.
 *
 * The program runs on a stack of its own (PSP), the handlers on another (MSP): a program that overruns its stack meets
 * the guard below it, and the handler of that fault still has a stack to run on.
 */
#include "cortexm.h"

#include <stddef.h>

#include "board.h"

#define CRASH_MAGIC 0x43524153u

#define SCB_AIRCR REGISTER(0xE000ED0C)
#define SCB_SHCSR REGISTER(0xE000ED24)
#define SCB_CFSR REGISTER(0xE000ED28)
#define SCB_MMFAR REGISTER(0xE000ED34)
#define SCB_BFAR REGISTER(0xE000ED38)
#define SCB_CPACR REGISTER(0xE000ED88)
#define MPU_CTRL REGISTER(0xE000ED94)
#define MPU_RBAR REGISTER(0xE000ED9C)
#define MPU_RASR REGISTER(0xE000EDA0)

/* of a region of the MPU: who may do what, and the kind of memory */
#define READ_ONLY (6u << 24)
#define READ_WRITE (3u << 24)
#define NO_ACCESS 0u
#define NO_CODE (1u << 28)
#define NORMAL (1u << 19 | 1u << 17 | 1u << 16) /* cached, written back */
#define DEVICE (1u << 16)

/* of CFSR: the registers could not be saved when the fault was taken */
#define NOT_SAVED (1u << 4 | 1u << 12)
#define MMFAR_VALID (1u << 7)
#define BFAR_VALID (1u << 15)

/* from the linker script; only their addresses mean something */
extern uint32_t link_data_from[], link_data_start[], link_data_end[], link_bss_start[], link_bss_end[];
extern uint32_t link_records_start[], link_records_end[];
extern uint32_t link_handler_stack_top[], link_stack_top[], link_stack_guard[];
extern uint32_t link_flash[], link_flash_log2[], link_ram[], link_ram_log2[], link_store[], link_store_log2[];
extern uint32_t link_config[], link_config_log2[];
extern crash_record link_crash;

static uint32_t sum_of(const crash_record *record) {
    const uint32_t *word = &record->magic;
    uint32_t sum = 0;
    for (size_t k = 0; k < offsetof(crash_record, check) / sizeof *word; k++) {
        sum += word[k];
    }
    return ~sum;
}

crash_record crash_last(void) {
    const crash_record none = {0};
    return link_crash.magic == CRASH_MAGIC && link_crash.check == sum_of(&link_crash) ? link_crash : none;
}

void crash_forget(void) {
    link_crash.magic = 0;
}

/* Takes down what happened, makes the outputs safe, and starts again. `frame`: the registers that were saved. */
__attribute__((used, noreturn)) static void crash(const uint32_t *frame) {
    uint32_t cause, status = SCB_CFSR;
    __asm__ volatile("mrs %0, ipsr" : "=r"(cause));
    MPU_CTRL = 0; /* the frame may lie in the guard */
    board_outputs(0);
    link_crash.magic = CRASH_MAGIC;
    link_crash.cause = cause & 0x1FF;
    link_crash.pc = status & NOT_SAVED ? 0 : frame[6];
    link_crash.lr = status & NOT_SAVED ? 0 : frame[5];
    link_crash.status = status;
    link_crash.address = status & MMFAR_VALID ? SCB_MMFAR : status & BFAR_VALID ? SCB_BFAR : 0;
    link_crash.steps = program_steps();
    link_crash.check = sum_of(&link_crash);
    __asm__ volatile("dsb");
    SCB_AIRCR = 0x05FA0004; /* reset of the whole system */
    for (;;) {
    }
}

/* every exception that is none of the board's own */
__attribute__((naked)) static void fault(void) {
    __asm__ volatile("tst lr, #4\n"
                     "ite eq\n"
                     "mrseq r0, msp\n"
                     "mrsne r0, psp\n"
                     "b crash\n");
}

static void region(uint32_t number, const uint32_t *base, uint32_t log2_size, uint32_t what) {
    MPU_RBAR = (uint32_t)(uintptr_t)base | 1u << 4 | number;
    MPU_RASR = what | (log2_size - 1) << 1 | 1;
}

/* nothing but what is listed here may be touched; of two regions, the one with the higher number counts */
static void protect(void) {
    region(0, link_flash, (uint32_t)(uintptr_t)link_flash_log2, READ_ONLY | NORMAL);
    region(1, link_ram, (uint32_t)(uintptr_t)link_ram_log2, READ_WRITE | NO_CODE | NORMAL);
    region(2, link_store, (uint32_t)(uintptr_t)link_store_log2, READ_WRITE | NO_CODE | NORMAL);
    region(3, link_config, (uint32_t)(uintptr_t)link_config_log2, READ_ONLY | NO_CODE | NORMAL);
    region(4, (const uint32_t *)0x40000000, 29, READ_WRITE | NO_CODE | DEVICE);
    region(5, link_stack_guard, 8, NO_ACCESS | NO_CODE);
    SCB_SHCSR |= 1u << 16 | 1u << 17 | 1u << 18; /* faults of memory, bus and usage have handlers */
    MPU_CTRL = 1;
    __asm__ volatile("dsb\nisb");
}

static void fill(uint32_t *from, const uint32_t *to) {
    while (from < to) {
        *from++ = 0;
    }
}

__attribute__((used, noreturn)) static void start(void) {
    SCB_CPACR |= 0xFu << 20; /* the floating-point unit; its status register rounds and keeps subnormals as it is */
    __asm__ volatile("dsb\nisb");
    const uint32_t *from = link_data_from;
    for (uint32_t *to = link_data_start; to < link_data_end; to++) {
        *to = *from++;
    }
    fill(link_bss_start, link_bss_end);
    fill(link_records_start, link_records_end);
    protect();
    main();
    for (;;) {
    }
}

__attribute__((naked, noreturn)) static void reset(void) {
    __asm__ volatile("ldr r0, =link_stack_top\n"
                     "msr psp, r0\n"
                     "movs r0, #2\n"
                     "msr control, r0\n"
                     "isb\n"
                     "b start\n");
}

typedef void (*handler)(void);

/* the processor's table of exceptions, and the first interrupts of the board */
__attribute__((section(".vectors"), used)) static const handler vectors[] = {
    (handler)(uintptr_t)link_handler_stack_top,
    reset,
    fault, /* watchdog, as an interrupt that cannot be masked */
    fault, fault, fault, fault,
    NULL, NULL, NULL, NULL,
    fault, fault,
    NULL,
    fault,
    board_millisecond,
    board_interrupt,
    fault,
    board_can_interrupt,
    board_can_sent_interrupt,
};
