/* SMP, MCUmgr's protocol, over a serial line: any of its clients can look at the images and bring a new one.
 *
 * Who may: whoever holds the cable. The image has to be signed all the same, and nothing is written while a contactor is
 * closed. Known are echo, parameters and reset (group 0), state and upload of images (group 1).
 */
#ifndef SMP_H
#define SMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image.h"

enum { SMP_BUFFER = 1024 }; /* largest message with what frames it; told to the client */

/* of the board: bytes to the other side, which waits for all of them */
void smp_port_send(const void *data, size_t size);

/* the image of slot `running` runs (NO_SLOT: none, the boot loader waits) */
void smp_start(uint32_t running);

/* a byte has come; an answer is sent from here */
void smp_byte(uint8_t byte);

/* whether an image is coming in: the boot loader waits for the rest */
bool smp_is_in_use(void);

#endif
