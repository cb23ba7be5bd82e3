/* Which image runs: the one that has proved itself, or a new one for its trial.
 *
 * There are two slots, and a program runs where it lies: nothing is copied at a start. A new image is written into the slot
 * of the image that does not run, is armed, and is started once. Unless it confirms itself, the next start is that of
 * the image before. An image is checked from end to end before each start.
 */
#ifndef BOOT_H
#define BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "image.h"
#include "record.h"

/* how often a new image is started without having confirmed itself */
enum { BOOT_TRIES = 1 };

typedef struct {
    uint32_t slot; /* whose program is started; NO_SLOT: none is any good, the boot loader waits for one */
    image_facts facts;
    boot_record record;
} boot_choice;

/* at each start */
boot_choice boot_choose(void);

/* What a new image must have seen before it may confirm itself. */
enum { BOOT_SELF_TEST_PASSED = 1, BOOT_RACK_HEALTHY = 2 };

/* by the program that runs from `slot`, as often as it likes: it has proved itself. False where evidence is missing, or
 * the record was not written. */
bool boot_confirm(uint32_t slot, uint32_t evidence);

/* the slot for a new image while that of `running` runs (NO_SLOT: none); NO_SLOT where there is none free */
uint32_t boot_free_slot(uint32_t running);

/* before a slot is written: whatever it was, it counts no longer */
bool boot_open(uint32_t slot);

/* the image in a slot is to be started next, if it is good */
image_verdict boot_arm(uint32_t slot);

#endif
