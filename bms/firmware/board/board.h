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

/* call `control_millisecond`, which is the program's, every millisecond from now on; `passed_ms` are more where interrupts
 * were left out, as by an emulator that waits for its turn: its program has waited as well */
void board_timer_start(void);
void control_millisecond(uint32_t passed_ms);

/* time since `board_timer_start` */
uint32_t board_timer_ticks(void);

/* from now on, the longest time to the next `board_watchdog_feed`, after which the processor starts again */
void board_watchdog_start(uint32_t time_ms);
void board_watchdog_feed(void);

/* bytes of the link: one that has arrived, or false; and to the other side, which waits for all of them */
bool board_receive(uint8_t *byte);
void board_send(const void *data, size_t size);

/* bytes of the CAN port: one that has arrived, or false; to the other side, in the background, all of them or none where
 * there is no room; and how many have arrived and were lost, because they were not taken in time */
bool board_can_receive(uint8_t *byte);
bool board_can_send(const void *data, size_t size);
uint32_t board_can_lost(void);

/* sleep until an interrupt, unless a byte has arrived on either or `*flag` is set */
void board_wait(const volatile bool *flag);

#endif
