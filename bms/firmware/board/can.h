/* Frames of the rack's bus to a measurement, and a command to frames, by the tables of a profile (can_tables.h).
 *
 * What Python does with the same frames, hal/codec and hal/backends/can.py, is done here in the same order and in the
 * same double precision: records and frames are equal to the last bit.
 */
#ifndef CAN_H
#define CAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "can_tables.h"

/* what becomes of a frame */
typedef enum {
    CAN_ACCEPTED,
    CAN_UNKNOWN, /* no message of ours has this identifier */
    CAN_WRONG_LENGTH,
    CAN_WRONG_CRC,
    CAN_REPEATED,        /* the counter stands still: the frame came before */
    CAN_OUT_OF_SEQUENCE, /* the counter went too far: the frame is old, or the sender was away */
    CAN_VERDICTS,
} can_verdict;

typedef struct {
    uint32_t frames[CAN_VERDICTS]; /* how many had that verdict */
    uint32_t lost;                 /* frames that the counters tell never came */
} can_counts;

/* nothing has come, nothing was sent; counts are 0 */
void can_start(void);

/* takes a frame: what is wrong changes nothing but the count of it */
can_verdict can_accept(uint32_t key, const uint8_t *data, size_t length, double now_s);

/* takes the next frame of each kind whatever its counter: after the bus was away */
void can_forget_counters(void);

/* messages that are needed and have not come yet: nothing can be decided before */
uint32_t can_missing(void);

/* whether the rack says that it is of this layout and size; of no use before all have come */
bool can_rack_fits(void);

/* fills a measurement, which was made of `can_blank` or by this function before */
void can_measure(uint8_t *measurement, double now_s);

/* makes the frames of a command; false for one that no rack could follow or that the frames cannot carry */
bool can_command(const uint8_t *command);

/* the bytes of frame `row` of `can_out_rows`, after `can_command`; the rack acts on the last one */
const uint8_t *can_frame(uint32_t row);

const can_counts *can_count(void);

#endif
