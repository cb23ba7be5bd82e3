/* The board: Arm's MPS2 with the image AN386 (Cortex-M4) or AN500 (Cortex-M7), as QEMU emulates them.
 *
 * Registers: Arm Cortex-M System Design Kit, technical reference (DDI 0479), chapters on the UART, the watchdog; Arm
 * application notes AN386 and AN500 for addresses. The contactors are the eight lamps of the board.
 */
#include "board.h"
#include "control.h"
#include "cortexm.h"
#include "mail.h"

#define CLOCK_HZ 25000000u
#define TICKS_A_MS (CLOCK_HZ / 1000u)

#define UART_DATA REGISTER(0x40004000)
#define UART_STATE REGISTER(0x40004004)
#define UART_CTRL REGISTER(0x40004008)
#define UART_INTCLEAR REGISTER(0x4000400C)
#define UART_BAUDDIV REGISTER(0x40004010)
#define UART_FULL 1u    /* of STATE: the byte before has not been sent yet */
#define UART_ARRIVED 2u /* of STATE: a byte has arrived */

#define WATCHDOG_LOAD REGISTER(0x40008000)
#define WATCHDOG_CTRL REGISTER(0x40008008)
#define WATCHDOG_INTCLEAR REGISTER(0x4000800C)
#define WATCHDOG_LOCK REGISTER(0x40008C00)
#define WATCHDOG_KEY 0x1ACCE551u

#define LAMPS REGISTER(0x4002F004)

#define RING 16384u /* bytes that may arrive during a step, a power of 2 */

const uint32_t board_timer_hz = CLOCK_HZ;

static volatile uint8_t ring[RING];
static volatile uint32_t arrived;
static uint32_t taken;
static volatile uint32_t passed_ms;

void board_init(void) {
    board_outputs(0);
    UART_BAUDDIV = 16;
    UART_CTRL = 1u | 2u | 8u; /* send, receive, interrupt for what arrives */
    NVIC_ISER = 1;
}

void board_outputs(uint8_t contactors) {
    LAMPS = contactors;
}

void board_timer_start(void) {
    SYSTICK_LOAD = TICKS_A_MS - 1;
    SYSTICK_VAL = 0;
    passed_ms = 0;
    SYSTICK_CTRL = 7; /* on, with interrupt, from the processor's clock */
}

uint32_t board_timer_ticks(void) {
    uint32_t ms, left;
    do {
        ms = passed_ms;
        left = SYSTICK_VAL;
    } while (ms != passed_ms);
    return ms * TICKS_A_MS + (left ? TICKS_A_MS - left : 0);
}

void board_millisecond(void) {
    passed_ms++;
    control_millisecond();
}

void board_watchdog_start(uint32_t time_ms) {
    WATCHDOG_LOCK = WATCHDOG_KEY;
    WATCHDOG_LOAD = time_ms * TICKS_A_MS;
    WATCHDOG_CTRL = 3; /* the first time an interrupt, the second a reset */
    WATCHDOG_LOCK = 0;
}

void board_watchdog_feed(void) {
    WATCHDOG_LOCK = WATCHDOG_KEY;
    WATCHDOG_INTCLEAR = 1;
    WATCHDOG_LOCK = 0;
}

/* a byte has arrived: cleared first, so that none is missed that comes meanwhile */
void board_interrupt(void) {
    UART_INTCLEAR = 2;
    while (UART_STATE & UART_ARRIVED) {
        ring[arrived % RING] = (uint8_t)UART_DATA;
        arrived++;
    }
}

bool board_receive(uint8_t *byte) {
    if (mail_used()) {
        taken = arrived; /* they only ring */
        return mail_receive(byte);
    }
    if (taken == arrived) {
        return false;
    }
    *byte = ring[taken % RING];
    taken++;
    return true;
}

static void transmit(uint8_t byte) {
    while (UART_STATE & UART_FULL) {
    }
    UART_DATA = byte;
}

void board_send(const void *data, size_t size) {
    const uint8_t *byte = data;
    while (size && mail_used()) {
        const size_t sent = mail_send(byte, size);
        byte += sent;
        size -= sent;
        if (size) {
            transmit(0); /* it is full */
        }
    }
    for (; size; size--) {
        transmit(*byte++);
    }
}

void board_wait(const volatile bool *flag) {
    if (mail_to_tell()) {
        transmit(0);
    }
    __asm__ volatile("cpsid i");
    if (taken == arrived && !*flag) {
        __asm__ volatile("wfi"); /* a masked interrupt ends it, too */
    }
    __asm__ volatile("cpsie i");
}
