/* What all processors of the Cortex-M kind have in common: start, faults, protection of memory. */
#ifndef CORTEXM_H
#define CORTEXM_H

#include <stdbool.h>
#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define NVIC_ISER REGISTER(0xE000E100)
#define NVIC_ICER REGISTER(0xE000E180)
#define SCB_ICSR REGISTER(0xE000ED04)
#define SYSTICK_CTRL REGISTER(0xE000E010)
#define SYSTICK_LOAD REGISTER(0xE000E014)
#define SYSTICK_VAL REGISTER(0xE000E018)

/* What is left of a crash in memory that no reset touches. */
typedef struct {
    uint32_t magic;
    uint32_t cause;   /* number of the exception: 2 watchdog, 3 hard fault, 4 memory, 5 bus, 6 usage, 16.. interrupt */
    uint32_t pc;      /* where it happened, 0 where that could not be saved */
    uint32_t lr;
    uint32_t status;  /* CFSR: what kind of fault */
    uint32_t address; /* what was accessed, where the processor knows */
    uint32_t steps;   /* control steps since the start */
    uint32_t check;   /* sum of the words before */
} crash_record;

/* the record of the last crash; `cause` is 0 without one */
crash_record crash_last(void);

/* whether it has happened since this was asked last */
bool crash_is_new(void);

/* forget it */
void crash_forget(void);

/* remembers over a reset that somebody has the CAN port open, who does not notice that one */
bool channel_was_open(void);
void channel_is_open(bool open);

/* the outputs are safe, and the whole system starts again */
__attribute__((noreturn)) void processor_restart(void);

/* leaves this program for one that begins with the table `vectors`, and finds the processor as after a reset */
__attribute__((noreturn)) void processor_enter(const uint32_t *vectors);

/* whether the flash that holds programs can be written; it cannot at the start */
void memory_lock(bool locked);

/* of the program: how many steps it has made, for the record; and where it begins, never to return */
uint32_t program_steps(void);
int main(void);

/* of the board, for the vector table: the timer's interrupt, the first one, of the link, the third and the fourth, of the
 * CAN port */
void board_millisecond(void);
void board_interrupt(void);
void board_can_interrupt(void);
void board_can_sent_interrupt(void);

#endif
