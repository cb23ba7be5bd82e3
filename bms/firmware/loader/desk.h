/* Where a flasher comes to, in the boot loader and in a program that it has started: the CAN port, with UDS on it. */
#ifndef DESK_H
#define DESK_H

#include <stdbool.h>
#include <stdint.h>

#include "image.h"
#include "slcan.h"

enum { DESK_REQUEST = 0x7E0, DESK_RESPONSE = 0x7E8 };

/* the image of slot `running` runs (NO_SLOT: none); `facts` of it */
void desk_start(uint32_t running, const image_facts *facts);

/* a frame has come; false where it is not for the desk */
bool desk_frame(const slcan_frame *frame, uint32_t now_ms);

/* to be called often; it may end in a new start */
void desk_poll(uint32_t now_ms);

#endif
