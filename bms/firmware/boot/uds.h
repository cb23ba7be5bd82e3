/* UDS (ISO 14229-1:2020): lets a flasher in, who has proved who it is, while nothing is connected to the rack.
 *
 * 0x10 session, 0x11 reset, 0x22 what runs, 0x29 authentication by challenge, 0x34/0x36/0x37 download, 0x31 routines,
 * 0x3E tester present. It runs in the boot loader, and in a program beside the controller.
 */
#ifndef UDS_H
#define UDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image.h"

/* what can be read by 0x22 */
enum { UDS_VERSION = 0xF195, UDS_STATE = 0xFD00, UDS_CRASH = 0xFD01, UDS_SLOTS = 0xFD02 };

/* routines of 0x31 */
enum {
    UDS_SUMS = 0x0210,  /* first sector, number of sectors, 16 bits each -> CRC-32 of each: what of an image is there already */
    UDS_CHECK = 0xFF01, /* the image that was written is checked, and has its trial at the next start -> image_verdict */
};

/* of the board */
bool uds_port_contactors_open(void);              /* by their feedback */
void uds_port_random(uint8_t *to, size_t size);   /* that nobody can guess */
void uds_port_reset(void);                        /* start again, when what was sent has gone out */

/* the image of slot `running` runs (NO_SLOT: none, the boot loader waits); `facts` of it */
void uds_start(uint32_t running, const image_facts *facts);

/* a frame with our identifier has come */
void uds_frame(const uint8_t *data, size_t size, uint32_t now_ms);

/* to be called often */
void uds_poll(uint32_t now_ms);

/* whether somebody is in another session than the default one: the boot loader waits for them */
bool uds_is_in_use(void);

#endif
