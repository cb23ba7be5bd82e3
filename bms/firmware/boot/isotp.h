/* ISO-TP (ISO 15765-2:2016) on classic CAN, normal addressing: one message at a time in each direction. */
#ifndef ISOTP_H
#define ISOTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ISOTP_FRAME = 8,
    ISOTP_LARGEST = 4095, /* of what is received */
    ISOTP_ANSWER = 256,   /* of what is sent */
    ISOTP_BLOCK = 32,     /* frames until the sender waits for us again */
    ISOTP_TIME_OUT_MS = 1000,
};

/* of the board: sends a frame of eight bytes with our identifier; false where there is no room now */
bool isotp_port_send(const uint8_t frame[ISOTP_FRAME]);

/* forget all */
void isotp_reset(void);

/* A frame has come. Gives the size of a message that is complete with it, which lies at `*message` until the next frame;
 * 0 where there is none. */
size_t isotp_receive(const uint8_t *frame, size_t size, uint32_t now_ms, const uint8_t **message);

/* sends a message; a longer one goes on in `isotp_poll` */
void isotp_send(const void *message, size_t size, uint32_t now_ms);

/* sends what is due; to be called often */
void isotp_poll(uint32_t now_ms);

#endif
