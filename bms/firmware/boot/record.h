/* What the boot loader remembers: one record, twice, in two sectors. Where they differ, the one with the higher number counts.
 *
 * A new record goes into the sector of the older one, which is erased for it, and then into the other sector too. So there is
 * a whole record at every moment, nothing is ever written behind something whose writing may have been cut off, and a
 * sector that loses its bits takes nothing with it.
 */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "port.h"

#define NO_SLOT 0xFFFFFFFFu

/* what happened last; numbers go over the wire: add to the end */
typedef enum {
    EVENT_NONE = 0,
    EVENT_ADOPTED = 1,   /* an image was found and taken over without a record of it */
    EVENT_ARMED = 2,     /* a new image waits for its trial */
    EVENT_TRIED = 3,     /* a new image was started for its trial */
    EVENT_CONFIRMED = 4, /* it has proved itself */
    EVENT_REVERTED = 5,  /* it has not */
    EVENT_REFUSED = 6,   /* it is no good: `verdict` */
    EVENT_OPENED = 7,    /* a slot is being written */
} boot_event;

typedef struct {
    uint32_t magic, number;
    uint32_t active;  /* slot of the image that has proved itself */
    uint32_t trial;   /* slot of an image that has yet to */
    uint32_t tries;   /* how often it was started */
    uint32_t failed;  /* slot of an image that has not proved itself, until it is written again */
    uint32_t counter; /* no image with a smaller security counter is started */
    uint32_t event;   /* boot_event */
    uint32_t verdict; /* image_verdict that goes with it */
    uint32_t crash[PORT_CRASH]; /* what the last crash has left */
    uint32_t reserved[6];
    uint32_t check; /* CRC-32 of all before */
} boot_record;

_Static_assert(sizeof(boot_record) % PORT_WRITE_LARGEST == 0, "whole units are written");

/* the record that counts; where there is none, one that knows of no slot, and false */
bool record_load(boot_record *record);

/* whether both sectors hold the same record; false where they have to be written again */
bool record_is_twice(void);

/* the next record: false where it was not written, and the last one still counts */
bool record_store(boot_record *record);

#endif
