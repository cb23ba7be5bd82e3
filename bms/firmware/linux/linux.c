/* The board: a process of Linux, without a C library. Its standard input and output are the link.
 *
 * A file named as the only argument becomes the memory of configuration and records: who maps it, too, sees them as a
 * debugger would. Nothing interrupts a step here: its time is told, but a step that takes too long is not cut short.
 * Numbers of calls: Linux, include/uapi/asm-generic/unistd.h, and those of arch/arm and arch/x86 in its source.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "control.h"
#include "cortexm.h"

#if defined __x86_64__
enum { READ = 0, WRITE = 1, MMAP = 9, CLOCK = 228, EXIT = 231, OPENAT = 257, PPOLL = 271 };
#elif defined __aarch64__
enum { READ = 63, WRITE = 64, MMAP = 222, CLOCK = 113, EXIT = 94, OPENAT = 56, PPOLL = 73 };
#elif defined __riscv && __riscv_xlen == 32
enum { READ = 63, WRITE = 64, MMAP = 222, CLOCK = 403, EXIT = 94, OPENAT = 56, PPOLL = 414 };
#elif defined __arm__
enum { READ = 3, WRITE = 4, MMAP = 192, CLOCK = 403, EXIT = 248, OPENAT = 322, PPOLL = 414 };
#else
#error "no calls of Linux are known for this processor"
#endif

/* a call of the system; addresses and numbers have the width of a register */
static intptr_t call(intptr_t number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e, intptr_t f) {
#if defined __x86_64__
    register intptr_t r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    intptr_t result = number;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined __aarch64__
    register intptr_t x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    register intptr_t x4 __asm__("x4") = e, x5 __asm__("x5") = f, x8 __asm__("x8") = number;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x8) : "memory");
    return x0;
#elif defined __riscv
    register intptr_t a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a3 __asm__("a3") = d;
    register intptr_t a4 __asm__("a4") = e, a5 __asm__("a5") = f, a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7) : "memory");
    return a0;
#else
    register intptr_t r0 __asm__("r0") = a, r1 __asm__("r1") = b, r2 __asm__("r2") = c, r3 __asm__("r3") = d;
    register intptr_t r4 __asm__("r4") = e, r5 __asm__("r5") = f, r7 __asm__("r7") = number;
    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5), "r"(r7) : "memory");
    return r0;
#endif
}

__attribute__((noreturn)) static void end(int code) {
    for (;;) {
        call(EXIT, code, 0, 0, 0, 0, 0);
    }
}

/* ---------------------------------------------------------------------------------------------------------- time */

typedef struct {
    int64_t s, ns;
} span;

#define WAIT_MS 5u /* the timer is looked at so often while nothing arrives */

const uint32_t board_timer_hz = 1000000;

static int64_t begun_us;
static uint32_t passed_ms; /* of which the controller has been told */

static int64_t now_us(void) {
    enum { MONOTONIC = 1 };
    span now = {0, 0};
    call(CLOCK, MONOTONIC, (intptr_t)&now, 0, 0, 0, 0);
    return now.s * 1000000 + now.ns / 1000;
}

void board_timer_start(void) {
    begun_us = now_us();
    passed_ms = 0;
}

uint32_t board_timer_ticks(void) {
    return (uint32_t)(now_us() - begun_us);
}

void board_watchdog_start(uint32_t time_ms) {
    (void)time_ms; /* the system looks after its processes */
}

void board_watchdog_feed(void) {
}

/* ------------------------------------------------------------------------------------------- outputs, and crashes */

/* what a rack controller has its contactors follow */
extern volatile uint8_t linux_outputs;
volatile uint8_t linux_outputs;

void board_outputs(uint8_t contactors) {
    linux_outputs = contactors;
}

crash_record crash_last(void) {
    const crash_record none = {0};
    return none;
}

void crash_forget(void) {
}

/* ---------------------------------------------------------------------------------------------------------- link */

enum { INPUT = 0, OUTPUT = 1 };

static uint8_t in[65536], out[65536];
static size_t in_size, in_taken, out_size;
static bool readable;

static void flush(void) {
    for (size_t at = 0; at < out_size;) {
        const intptr_t written = call(WRITE, OUTPUT, (intptr_t)(out + at), (intptr_t)(out_size - at), 0, 0, 0);
        if (written <= 0) {
            end(0); /* the other side has gone */
        }
        at += (size_t)written;
    }
    out_size = 0;
}

bool board_receive(uint8_t *byte) {
    if (in_taken == in_size) {
        if (!readable) {
            return false;
        }
        const intptr_t arrived = call(READ, INPUT, (intptr_t)in, sizeof in, 0, 0, 0);
        if (arrived <= 0) {
            board_outputs(0);
            end(0);
        }
        readable = false;
        in_size = (size_t)arrived;
        in_taken = 0;
    }
    *byte = in[in_taken++];
    return true;
}

void board_send(const void *data, size_t size) {
    const uint8_t *byte = data;
    while (size--) {
        out[out_size++] = *byte++;
        if (out_size == sizeof out) {
            flush();
        }
    }
}

/* no bus is connected */
bool board_can_receive(uint8_t *byte) {
    (void)byte;
    return false;
}

bool board_can_send(const void *data, size_t size) {
    (void)data;
    (void)size;
    return false;
}

uint32_t board_can_lost(void) {
    return 0;
}

void board_wait(const volatile bool *flag) {
    struct {
        int32_t fd;
        int16_t events, happened;
    } input = {INPUT, 1, 0};
    span left = {0, WAIT_MS * 1000000}; /* the call writes what is left of it */
    flush();
    if (in_taken < in_size || readable || *flag) {
        return;
    }
    readable = call(PPOLL, (intptr_t)&input, 1, (intptr_t)&left, 0, 0, 0) > 0;
    for (const uint32_t ms = board_timer_ticks() / 1000; passed_ms < ms; passed_ms++) {
        control_millisecond(1);
    }
}

/* --------------------------------------------------------------------------------------------------------- start */

/* from linux.ld: configuration and records, in pages of their own; only their addresses mean something */
extern uint8_t link_store[], link_store_end[];

void board_init(void) {
    board_outputs(0);
}

/* puts the memory into a file: its content first, then the file in its place */
static bool shared(const char *path) {
    enum { HERE = -100, READ_WRITE = 2, PAGES_READ_WRITE = 3, SHARED_FIXED = 0x11 };
    const intptr_t size = link_store_end - link_store, file = call(OPENAT, HERE, (intptr_t)path, READ_WRITE, 0, 0, 0);
    if (file < 0) {
        return false;
    }
    for (intptr_t at = 0; at < size;) {
        const intptr_t written = call(WRITE, file, (intptr_t)(link_store + at), size - at, 0, 0, 0);
        if (written <= 0) {
            return false;
        }
        at += written;
    }
    return call(MMAP, (intptr_t)link_store, size, PAGES_READ_WRITE, SHARED_FIXED, file, 0) == (intptr_t)link_store;
}

/* `stack`: the number of words of the command line, then their addresses */
__attribute__((used, noreturn)) static void begin(const intptr_t *stack) {
    static const char complaint[] = "the file for the memory cannot be used\n";
    if (stack[0] > 1 && !shared((const char *)stack[2])) {
        call(WRITE, 2, (intptr_t)complaint, sizeof complaint - 1, 0, 0, 0);
        end(1);
    }
    main();
    end(0);
}

__asm__(".globl _start\n"
        ".type _start, %function\n"
#if defined __x86_64__
        "_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n"
#elif defined __aarch64__
        "_start: mov x0, sp\n bl begin\n"
#elif defined __riscv
        "_start: .option push\n .option norelax\n la gp, __global_pointer$\n .option pop\n"
        "mv a0, sp\n andi sp, sp, -16\n call begin\n"
#else
        ".thumb\n .thumb_func\n _start: mov r0, sp\n bl begin\n"
#endif
);
