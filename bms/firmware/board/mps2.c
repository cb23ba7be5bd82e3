/* The board: Arm's MPS2 with the image AN386 (Cortex-M4) or AN500 (Cortex-M7), as QEMU emulates them.
 *
 * Registers: Arm Cortex-M System Design Kit, technical reference (DDI 0479), chapters on the UART, the watchdog; Arm
 * application notes AN386 and AN500 for addresses. The contactors are the eight lamps of the board.
 */
#include "board.h"
#include "cortexm.h"
#include "mail.h"

#define CLOCK_HZ 25000000u
#define TICKS_A_MS (CLOCK_HZ / 1000u)

#define LINK_UART 0x40004000u /* the first one */
#define CAN_UART 0x40005000u  /* the second one */
#define UART_DATA(uart) REGISTER((uart))
#define UART_STATE(uart) REGISTER((uart) + 4u)
#define UART_CTRL(uart) REGISTER((uart) + 8u)
#define UART_INTCLEAR(uart) REGISTER((uart) + 12u)
#define UART_BAUDDIV(uart) REGISTER((uart) + 16u)
#define UART_FULL 1u    /* of STATE: the byte before has not been sent yet */
#define UART_ARRIVED 2u /* of STATE: a byte has arrived */
#define UART_OVERRUN 8u /* of STATE: one has arrived before the one before was taken; 1 clears it */
#define SENT 1u         /* of INTCLEAR: the interrupts of a byte that has gone, and of one that has arrived */
#define RECEIVED 2u

/* numbers of the interrupts */
#define LINK_RECEIVED 0u
#define CAN_RECEIVED 2u
#define CAN_SENT 3u

/* a timer that counts down, 32 bits of the processor's clock, and then begins anew */
#define TIMER_LOAD REGISTER(0x40002000)
#define TIMER_VALUE REGISTER(0x40002004)
#define TIMER_CTRL REGISTER(0x40002008)

#define WATCHDOG_LOAD REGISTER(0x40008000)
#define WATCHDOG_CTRL REGISTER(0x40008008)
#define WATCHDOG_INTCLEAR REGISTER(0x4000800C)
#define WATCHDOG_LOCK REGISTER(0x40008C00)
#define WATCHDOG_KEY 0x1ACCE551u

#define LAMPS REGISTER(0x4002F004)

#define RING 16384u    /* bytes that may arrive during a step, a power of 2 */
#define CAN_OUT 8192u  /* bytes that may wait to be sent on the CAN port, a power of 2 */

const uint32_t board_timer_hz = CLOCK_HZ;

/* bytes that have arrived on a port and were not taken yet */
typedef struct {
    volatile uint8_t bytes[RING];
    volatile uint32_t arrived, taken, lost;
} ring;

static ring link, can;
static uint8_t out[CAN_OUT];
static volatile uint32_t out_end, out_sent; /* bytes until now: given to be sent, and gone */
static uint32_t timer_start;
static volatile uint32_t told; /* whole milliseconds that were passed on, in counts of the timer */

void board_init(void) {
    board_outputs(0);
    UART_BAUDDIV(LINK_UART) = 16;
    UART_BAUDDIV(CAN_UART) = 16;
    UART_CTRL(LINK_UART) = 1u | 2u | 8u;     /* send, receive, interrupt for what arrives */
    UART_CTRL(CAN_UART) = 1u | 2u | 4u | 8u; /* ... and for what has gone */
    NVIC_ISER = 1u << LINK_RECEIVED | 1u << CAN_RECEIVED | 1u << CAN_SENT;
}

void board_outputs(uint8_t contactors) {
    LAMPS = contactors;
}

void board_timer_start(void) {
    SYSTICK_CTRL = 0;
    SCB_ICSR = 1u << 25; /* what is pending counts no more */
    __asm__ volatile("dsb\nisb" ::: "memory");
    TIMER_LOAD = 0xFFFFFFFFu;
    TIMER_CTRL = 0x82; /* on, 32 bits */
    timer_start = TIMER_VALUE;
    told = 0;
    SYSTICK_LOAD = TICKS_A_MS - 1;
    SYSTICK_VAL = 0;
    SYSTICK_CTRL = 7; /* on, with interrupt, from the processor's clock */
}

uint32_t board_timer_ticks(void) {
    return timer_start - TIMER_VALUE;
}

void board_millisecond(void) {
    const uint32_t passed_ms = (board_timer_ticks() - told) / TICKS_A_MS;
    told += passed_ms * TICKS_A_MS;
    control_millisecond(passed_ms);
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

/* Bytes have arrived: cleared first, so that none is missed that comes meanwhile. What finds no room is lost, and what
 * the port itself has lost counts as one byte, for it does not tell how many. */
static void take_in(uint32_t uart, ring *in) {
    UART_INTCLEAR(uart) = RECEIVED;
    if (UART_STATE(uart) & UART_OVERRUN) {
        UART_STATE(uart) = UART_OVERRUN;
        in->lost++;
    }
    while (UART_STATE(uart) & UART_ARRIVED) {
        const uint8_t byte = (uint8_t)UART_DATA(uart);
        if (in->arrived - in->taken == RING) {
            in->lost++;
        } else {
            in->bytes[in->arrived % RING] = byte;
            in->arrived++;
        }
    }
}

static bool take_out(ring *in, uint8_t *byte) {
    if (in->taken == in->arrived) {
        return false;
    }
    *byte = in->bytes[in->taken % RING];
    in->taken++;
    return true;
}

void board_interrupt(void) {
    take_in(LINK_UART, &link);
}

bool board_receive(uint8_t *byte) {
    if (mail_used()) {
        link.taken = link.arrived; /* they only ring */
        return mail_receive(byte);
    }
    return take_out(&link, byte);
}

static void transmit(uint8_t byte) {
    while (UART_STATE(LINK_UART) & UART_FULL) {
    }
    UART_DATA(LINK_UART) = byte;
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

void board_can_interrupt(void) {
    take_in(CAN_UART, &can);
}

/* there may be room for another byte to go; also called with its interrupt off */
void board_can_sent_interrupt(void) {
    UART_INTCLEAR(CAN_UART) = SENT;
    while (out_sent != out_end && !(UART_STATE(CAN_UART) & UART_FULL)) {
        UART_DATA(CAN_UART) = out[out_sent % CAN_OUT];
        out_sent++;
    }
}

bool board_can_receive(uint8_t *byte) {
    return take_out(&can, byte);
}

bool board_can_send(const void *data, size_t size) {
    const uint8_t *byte = data;
    const uint32_t end = out_end;
    if (size > CAN_OUT - (end - out_sent)) {
        return false;
    }
    for (size_t k = 0; k < size; k++) {
        out[(end + k) % CAN_OUT] = byte[k];
    }
    NVIC_ICER = 1u << CAN_SENT;
    __asm__ volatile("dsb\nisb" ::: "memory");
    out_end = end + size;
    board_can_sent_interrupt();
    NVIC_ISER = 1u << CAN_SENT;
    return true;
}

uint32_t board_can_lost(void) {
    return can.lost;
}

void board_wait(const volatile bool *flag) {
    if (mail_to_tell()) {
        transmit(0);
    }
    __asm__ volatile("cpsid i");
    if (link.taken == link.arrived && can.taken == can.arrived && !*flag) {
        __asm__ volatile("wfi"); /* a masked interrupt ends it, too */
    }
    __asm__ volatile("cpsie i");
}
