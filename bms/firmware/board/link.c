/* Frames: see link.h. */
#include "link.h"

#include "board.h"

enum { START_0 = 0xA5, START_1 = 0x5A, HEAD = 8, CRC = 4 };

static uint8_t buffer[HEAD + LINK_LARGEST + CRC];
static size_t filled;  /* bytes in the buffer */
static size_t dropped; /* bytes of it that are done with: the last frame, or noise */

uint32_t link_crc(uint32_t crc, const void *data, size_t size) {
    /* four bits at a time, with a table for the reflected polynomial 0xEDB88320 */
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    const uint8_t *byte = data;
    crc = ~crc;
    while (size--) {
        crc ^= *byte++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint32_t word_at(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* drops what is done with, and moves what is left to the front */
static void drop(void) {
    for (size_t k = dropped; k < filled; k++) {
        buffer[k - dropped] = buffer[k];
    }
    filled -= dropped;
    dropped = 0;
}

/* looks at the buffer: a whole frame, or not yet; what cannot be one is dropped */
static bool found(link_frame *frame) {
    for (;;) {
        if (dropped) {
            drop();
        }
        if ((filled > 0 && buffer[0] != START_0) || (filled > 1 && buffer[1] != START_1)) {
            dropped = 1;
            continue;
        }
        if (filled < HEAD) {
            return false;
        }
        const uint32_t length = word_at(buffer + 4);
        if (length > LINK_LARGEST) {
            dropped = 1;
            continue;
        }
        if (filled < HEAD + length + CRC) {
            return false;
        }
        if (link_crc(0, buffer + 2, HEAD - 2 + length) != word_at(buffer + HEAD + length)) {
            dropped = 1;
            continue;
        }
        *frame = (link_frame){buffer[2], buffer[3], length, buffer + HEAD};
        dropped = HEAD + length + CRC;
        return true;
    }
}

bool link_receive(link_frame *frame) {
    uint8_t byte;
    if (found(frame)) {
        return true;
    }
    while (board_receive(&byte)) {
        buffer[filled++] = byte; /* there is room: a buffer that is full holds a frame, or noise that was dropped */
        if (found(frame)) {
            return true;
        }
    }
    return false;
}

void link_send(uint8_t kind, uint8_t sequence, const void *head, size_t head_size, const void *rest, size_t rest_size) {
    const uint32_t length = (uint32_t)(head_size + rest_size);
    const uint8_t start[HEAD] = {
        START_0,           START_1,                 kind,
        sequence,          (uint8_t)length,         (uint8_t)(length >> 8),
        (uint8_t)(length >> 16), (uint8_t)(length >> 24),
    };
    uint32_t crc = link_crc(0, start + 2, HEAD - 2);
    crc = link_crc(crc, head, head_size);
    crc = link_crc(crc, rest, rest_size);
    const uint8_t end[CRC] = {(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16), (uint8_t)(crc >> 24)};
    board_send(start, sizeof start);
    board_send(head, head_size);
    board_send(rest, rest_size);
    board_send(end, sizeof end);
}
