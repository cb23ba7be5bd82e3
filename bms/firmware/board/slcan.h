/* CAN frames over a serial port, in the ASCII of LAWICEL's adapters (SLCAN), as python-can's `slcan` and slcand speak it.
 *
 * The controller and its adapter are one: whoever opens the channel (O) is on the controller's bus, a frame that he
 * sends (t, T, r, R) has come to the controller, and what the controller sends goes to him while the channel is open.
 * A line ends with CR and is answered with CR, or with BEL where it is not understood or not allowed just now.
 * CAN232 manual (LAWICEL, 2009), chapter 4. The bit rate (S, s) has no meaning here; time stamps are off.
 */
#ifndef SLCAN_H
#define SLCAN_H

#include <stdbool.h>
#include <stdint.h>

#define SLCAN_EXTENDED 0x80000000u /* of an identifier: it has 29 bits, not 11 */

typedef struct {
    uint32_t identifier; /* with SLCAN_EXTENDED where it has 29 bits */
    bool remote;         /* asks for a frame, and has no data */
    uint8_t length;      /* 0 to 8 */
    uint8_t data[8];
} slcan_frame;

/* since `slcan_start`; what the port itself loses, `board_can_lost` counts */
typedef struct {
    uint32_t opened;   /* times that the channel was opened */
    uint32_t received; /* frames */
    uint32_t refused;  /* lines that were answered with BEL */
    uint32_t sent;     /* frames */
    uint32_t unsent;   /* frames that found no room because nobody reads */
} slcan_counts;

/* the channel is closed, and all counts are 0 */
void slcan_start(void);

/* the channel is open, for somebody who opened it before the processor started again, and did not notice that */
void slcan_resume(void);

/* takes what has arrived, and answers it; true with a frame, after which more may be there */
bool slcan_poll(slcan_frame *frame);

/* sends a frame, in the background; false where the channel is closed, or where there is no room for it */
bool slcan_send(const slcan_frame *frame);

/* whether somebody has the channel open: not the same as somebody listening */
bool slcan_is_open(void);

slcan_counts slcan_count(void);

#endif
