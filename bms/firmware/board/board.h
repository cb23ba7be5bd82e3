/* What the firmware asks of a board. A port to another board is these functions, a linker script, and no more. */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* counts a second of `board_timer_ticks` */
extern const uint32_t board_timer_hz;

/* clocks, link and outputs; the outputs are safe afterwards */
void board_init(void);

/* drive the contactors: bits of RACKBMS_CONTACTOR_..., 0 opens all of them; may be called at any time */
void board_outputs(uint8_t contactors);

/* call `control_millisecond` every millisecond from now on */
void board_timer_start(void);

/* time since `board_timer_start` */
uint32_t board_timer_ticks(void);

/* from now on, the longest time to the next `board_watchdog_feed`, after which the processor starts again */
void board_watchdog_start(uint32_t time_ms);
void board_watchdog_feed(void);

/* bytes of the link: one that has arrived, or false; and to the other side, which waits for all of them */
bool board_receive(uint8_t *byte);
void board_send(const void *data, size_t size);

/* sleep until an interrupt, unless a byte has arrived or `*flag` is set */
void board_wait(const volatile bool *flag);

#endif
