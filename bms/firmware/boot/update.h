/* Writes a new image into the free slot, piece by piece and in order. */
#ifndef UPDATE_H
#define UPDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image.h"

typedef enum {
    UPDATE_GOOD = 0,
    UPDATE_NO_SLOT = 1,   /* the image that runs is on trial: the other one stays until that is over */
    UPDATE_OUT_OF_RANGE = 2, /* beyond the slot, or not from the start of a sector on */
    UPDATE_NOT_OPEN = 3,
    UPDATE_FLASH = 4, /* the flash reports an error */
} update_result;

/* Begins, or goes on from `offset`, a whole number of sectors, while the image of slot `running` runs (NO_SLOT: none).
 * `size` bytes will follow, with the `ticket` that is given: whoever began before cannot go on. */
update_result update_start(uint32_t running, uint32_t offset, uint32_t size, uint32_t *ticket);

/* the next bytes; sectors are erased as they are reached */
update_result update_write(uint32_t ticket, const uint8_t *data, size_t size);

/* whether the next `size` bytes reach a sector that has to be erased first, which takes its time */
bool update_erases(size_t size);

/* all bytes have been given: what is left over is written */
update_result update_end(uint32_t ticket);

#endif
