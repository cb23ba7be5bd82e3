/* Start of the processor, vector table, faults, and protection of memory.
 *
 * The program runs on a stack of its own (PSP), the handlers on another (MSP): a program that overruns its stack meets
 * the guard below it, and the handler of that fault still has a stack to run on.
 */
#include "cortexm.h"

#include <stddef.h>

#include "board.h"

#define CRASH_MAGIC 0x43524153u
#define KEPT_MAGIC 0x4B455054u

#define NVIC_ICPR REGISTER(0xE000E280)
#define NVIC_WORDS 8u
#define SCB_VTOR REGISTER(0xE000ED08)
#define SCB_AIRCR REGISTER(0xE000ED0C)
#define SCB_SHCSR REGISTER(0xE000ED24)
#define SCB_CFSR REGISTER(0xE000ED28)
#define SCB_MMFAR REGISTER(0xE000ED34)
#define SCB_BFAR REGISTER(0xE000ED38)
#define SCB_CPACR REGISTER(0xE000ED88)
#define MPU_CTRL REGISTER(0xE000ED94)
#define MPU_RNR REGISTER(0xE000ED98)
#define MPU_RBAR REGISTER(0xE000ED9C)
#define MPU_RASR REGISTER(0xE000EDA0)

/* of a region of the MPU: who may do what, and the kind of memory */
#define READ_ONLY (6u << 24)
#define READ_WRITE (3u << 24)
#define NO_ACCESS 0u
#define NO_CODE (1u << 28)
#define NORMAL (1u << 19 | 1u << 17 | 1u << 16) /* cached, written back */
#define DEVICE (1u << 16)

/* of ICSR: the timer, and a call of the system that waits */
#define FORGET_PENDING (1u << 25 | 1u << 27)
#define OWN_HANDLERS (1u << 16 | 1u << 17 | 1u << 18) /* faults of memory, bus and usage have handlers */
#define FPU (0xFu << 20)

/* numbers of the regions; of two that cover a place, the one with the higher number counts */
enum { LOADER, SLOTS, FLASH, RAM, STORE, CONFIG, PERIPHERALS, GUARD, REGIONS };

/* of CFSR: the registers could not be saved when the fault was taken */
#define NOT_SAVED (1u << 4 | 1u << 12)
#define MMFAR_VALID (1u << 7)
#define BFAR_VALID (1u << 15)

/* from the linker script; only their addresses mean something */
extern uint32_t link_data_from[], link_data_start[], link_data_end[], link_bss_start[], link_bss_end[];
extern uint32_t link_records_start[], link_records_end[];
extern uint32_t link_handler_stack_top[], link_stack_top[], link_stack_guard[];
extern uint32_t link_flash[], link_flash_log2[], link_ram[], link_ram_log2[], link_store[], link_store_log2[];
extern uint32_t link_config[], link_config_log2[], link_loader[], link_loader_log2[], link_slots[], link_slots_log2[];

/* memory that no start touches */
extern struct {
    crash_record crash;
    uint32_t magic; /* what follows has a meaning */
    uint32_t crash_is_told, channel_is_open;
} link_kept;

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
    return link_kept.crash.magic == CRASH_MAGIC && link_kept.crash.check == sum_of(&link_kept.crash) ? link_kept.crash
                                                                                                     : none;
}

void crash_forget(void) {
    link_kept.crash.magic = 0;
}

/* what is kept gets a meaning, where it has none yet */
static void keep(void) {
    if (link_kept.magic != KEPT_MAGIC) {
        link_kept.crash_is_told = link_kept.channel_is_open = 0;
        link_kept.magic = KEPT_MAGIC;
    }
}

bool crash_is_new(void) {
    keep();
    const bool is_new = crash_last().cause != 0 && !link_kept.crash_is_told;
    link_kept.crash_is_told = 1;
    return is_new;
}

bool channel_was_open(void) {
    keep();
    return link_kept.channel_is_open;
}

void channel_is_open(bool open) {
    keep();
    link_kept.channel_is_open = open;
}

void processor_restart(void) {
    board_outputs(0);
    __asm__ volatile("dsb");
    SCB_AIRCR = 0x05FA0004; /* reset of the whole system */
    for (;;) {
    }
}

/* Takes down what happened, makes the outputs safe, and starts again. `frame`: the registers that were saved. */
__attribute__((used, noreturn)) static void crash(const uint32_t *frame) {
    uint32_t cause, status = SCB_CFSR;
    __asm__ volatile("mrs %0, ipsr" : "=r"(cause));
    MPU_CTRL = 0; /* the frame may lie in the guard */
    board_outputs(0);
    link_kept.crash = (crash_record){
        .magic = CRASH_MAGIC,
        .cause = cause & 0x1FF,
        .pc = status & NOT_SAVED ? 0 : frame[6],
        .lr = status & NOT_SAVED ? 0 : frame[5],
        .status = status,
        .address = status & MMFAR_VALID ? SCB_MMFAR : status & BFAR_VALID ? SCB_BFAR : 0,
        .steps = program_steps(),
    };
    link_kept.crash.check = sum_of(&link_kept.crash);
    link_kept.crash_is_told = 0;
    processor_restart();
}

/* every exception that is none of the board's own */
__attribute__((naked)) static void fault(void) {
    __asm__ volatile("tst lr, #4\n"
                     "ite eq\n"
                     "mrseq r0, msp\n"
                     "mrsne r0, psp\n"
                     "b crash\n");
}

static uint32_t number_of(const uint32_t *symbol) {
    uint32_t number = (uint32_t)(uintptr_t)symbol;
    __asm__("" : "+r"(number)); /* it may be 0, which compilers do not believe of an address */
    return number;
}

/* a region where its size is not 0 */
static void region(uint32_t number, const uint32_t *base, uint32_t log2_size, uint32_t what) {
    MPU_RBAR = number_of(base) | 1u << 4 | number;
    MPU_RASR = log2_size ? what | (log2_size - 1) << 1 | 1 : 0;
}

/* nothing but what is listed here may be touched */
static void protect(void) {
    region(LOADER, link_loader, number_of(link_loader_log2), READ_ONLY | NO_CODE | NORMAL);
    memory_lock(true);
    region(FLASH, link_flash, number_of(link_flash_log2), READ_ONLY | NORMAL);
    region(RAM, link_ram, number_of(link_ram_log2), READ_WRITE | NO_CODE | NORMAL);
    region(STORE, link_store, number_of(link_store_log2), READ_WRITE | NO_CODE | NORMAL);
    region(CONFIG, link_config, number_of(link_config_log2), READ_ONLY | NO_CODE | NORMAL);
    region(PERIPHERALS, (const uint32_t *)0x40000000, 29, READ_WRITE | NO_CODE | DEVICE);
    region(GUARD, link_stack_guard, 8, NO_ACCESS | NO_CODE);
    SCB_SHCSR |= OWN_HANDLERS;
    MPU_CTRL = 1;
    __asm__ volatile("dsb\nisb");
}

void memory_lock(bool locked) {
    region(SLOTS, link_slots, number_of(link_slots_log2), (locked ? READ_ONLY : READ_WRITE) | NO_CODE | NORMAL);
    __asm__ volatile("dsb\nisb");
}

/* from the stack that handlers have, as after a reset; `vectors`: the program's table */
__attribute__((naked, noreturn)) static void enter(const uint32_t *vectors) {
    __asm__ volatile("ldrd r1, r2, [%0]\n"
                     "movs r0, #0\n"
                     "msr control, r0\n"
                     "isb\n"
                     "msr msp, r1\n"
                     "cpsie i\n"
                     "bx r2\n"
                     :
                     : "r"(vectors));
}

void processor_enter(const uint32_t *vectors) {
    __asm__ volatile("cpsid i");
    SYSTICK_CTRL = 0;
    SYSTICK_VAL = 0;
    for (uint32_t k = 0; k < NVIC_WORDS; k++) {
        (&NVIC_ICER)[k] = 0xFFFFFFFFu;
        (&NVIC_ICPR)[k] = 0xFFFFFFFFu;
    }
    SCB_ICSR = FORGET_PENDING;
    SCB_SHCSR &= ~OWN_HANDLERS;
    MPU_CTRL = 0;
    for (uint32_t k = 0; k < REGIONS; k++) {
        MPU_RNR = k;
        MPU_RASR = 0;
    }
    SCB_CPACR &= ~FPU;
    SCB_VTOR = (uint32_t)(uintptr_t)vectors;
    __asm__ volatile("dsb\nisb");
    enter(vectors);
}

static void fill(uint32_t *from, const uint32_t *to) {
    while (from < to) {
        *from++ = 0;
    }
}

__attribute__((used, noreturn)) static void start(void) {
    SCB_CPACR |= FPU; /* the floating-point unit; its status register rounds and keeps subnormals as it is */
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
