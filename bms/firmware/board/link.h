/* Frames on the link between the controller and whoever measures for it.
 *
 *     two bytes 0xA5 0x5A | kind | sequence number | length of the content (32 bits) | content | CRC-32
 *
 * Numbers are little-endian; the CRC (IEEE 802.3, as in zlib) is of all that stands between the two bytes and itself. A
 * frame whose CRC is wrong, or that is too long, counts as noise: what follows its first byte is looked through again.
 */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rackbms_config.h"

/* of the longest frame to the controller: a whole measurement in runs, two numbers for every cell, or a WRITE */
#define LINK_LARGEST \
    (64u + 4096u + 2u * RACKBMS_CONFIG_MEASUREMENT_SIZE + 8u * RACKBMS_CONFIG_CELLS)

typedef struct {
    uint8_t kind;
    uint8_t sequence;
    uint32_t length;
    const uint8_t *content; /* valid until the next `link_receive` */
} link_frame;

/* takes what has arrived; true when a frame is complete */
bool link_receive(link_frame *frame);

/* sends a frame whose content is in two parts */
void link_send(uint8_t kind, uint8_t sequence, const void *head, size_t head_size, const void *rest, size_t rest_size);

/* CRC-32 of `size` bytes that follow others whose CRC is `crc`, 0 at the start */
uint32_t link_crc(uint32_t crc, const void *data, size_t size);

#endif
