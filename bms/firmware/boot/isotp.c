/* ISO-TP: see isotp.h. Frames begin with four bits that say what they are: single, first, consecutive, flow control. */
#include "isotp.h"

#include <string.h>

enum { SINGLE = 0, FIRST = 1, CONSECUTIVE = 2, FLOW = 3 };
enum { GO_ON = 0, WAIT = 1 };
enum { PADDING = 0xCC }; /* a pattern without long runs of equal bits, for which CAN would stuff */

static struct {
    uint8_t data[ISOTP_LARGEST];
    size_t size, filled; /* `filled` < `size`: in the middle of a message */
    uint8_t next, in_block;
    uint32_t since_ms;
} in;

static struct {
    uint8_t data[ISOTP_ANSWER];
    size_t size, sent;
    uint8_t next;
    bool may_go_on, endless; /* by the other side's flow control */
    uint8_t in_block, pause_ms;
    uint32_t since_ms;
} out;

void isotp_reset(void) {
    in.size = in.filled = 0;
    out.size = out.sent = 0;
}

static bool send(uint8_t first, uint8_t second, const uint8_t *rest, size_t size, size_t head) {
    uint8_t frame[ISOTP_FRAME];
    memset(frame, PADDING, sizeof frame);
    frame[0] = first;
    frame[1] = second;
    memcpy(frame + head, rest, size);
    return isotp_port_send(frame);
}

static void send_flow(void) {
    const uint8_t gap = 0;
    send(FLOW << 4 | GO_ON, ISOTP_BLOCK, &gap, 1, 2);
}

static size_t take(const uint8_t *bytes, size_t count, uint32_t now_ms, const uint8_t **message) {
    const size_t missing = in.size - in.filled;
    memcpy(in.data + in.filled, bytes, count < missing ? count : missing);
    in.filled += count < missing ? count : missing;
    in.since_ms = now_ms;
    *message = in.data;
    return in.filled == in.size ? in.size : 0;
}

static size_t begin(size_t total, const uint8_t *bytes, size_t count, uint32_t now_ms, const uint8_t **message) {
    in.size = total;
    in.filled = 0;
    in.next = 1;
    in.in_block = 0;
    return take(bytes, count, now_ms, message);
}

static size_t go_on(const uint8_t *frame, size_t size, uint32_t now_ms, const uint8_t **message) {
    if (in.filled == in.size) {
        return 0; /* of a message that we gave up */
    }
    if ((frame[0] & 15) != in.next || (size < ISOTP_FRAME && size - 1 < in.size - in.filled)) {
        in.size = in.filled = 0;
        return 0;
    }
    in.next = (in.next + 1) & 15;
    const size_t complete = take(frame + 1, size - 1, now_ms, message);
    if (!complete && ++in.in_block == ISOTP_BLOCK) {
        in.in_block = 0;
        send_flow();
    }
    return complete;
}

static void allow(const uint8_t *frame, size_t size, uint32_t now_ms) {
    if (out.sent == out.size || size < 3) {
        return;
    }
    out.since_ms = now_ms;
    if ((frame[0] & 15) == GO_ON) {
        out.may_go_on = true;
        out.in_block = frame[1];
        out.endless = frame[1] == 0;
        out.pause_ms = frame[2] <= 0x7F ? frame[2] : 1; /* the rest is below a millisecond, or reserved */
    } else if ((frame[0] & 15) != WAIT) {
        out.size = out.sent = 0; /* too long for the other side, or nonsense */
    }
}

size_t isotp_receive(const uint8_t *frame, size_t size, uint32_t now_ms, const uint8_t **message) {
    if (size < 2 || size > ISOTP_FRAME) {
        return 0;
    }
    const size_t low = frame[0] & 15;
    switch (frame[0] >> 4) {
    case SINGLE:
        return low > 0 && low < size ? begin(low, frame + 1, low, now_ms, message) : 0;
    case FIRST: {
        const size_t total = low << 8 | frame[1];
        if (size < ISOTP_FRAME || total < ISOTP_FRAME) {
            return 0;
        }
        begin(total, frame + 2, ISOTP_FRAME - 2, now_ms, message);
        send_flow();
        return 0;
    }
    case CONSECUTIVE:
        return go_on(frame, size, now_ms, message);
    case FLOW:
        allow(frame, size, now_ms);
        return 0;
    default:
        return 0;
    }
}

void isotp_send(const void *message, size_t size, uint32_t now_ms) {
    if (size < ISOTP_FRAME) {
        send((uint8_t)(SINGLE << 4 | size), PADDING, message, size, 1);
        return;
    }
    if (size > sizeof out.data) {
        return;
    }
    memcpy(out.data, message, size);
    out.size = size;
    out.sent = ISOTP_FRAME - 2;
    out.next = 1;
    out.may_go_on = false;
    out.since_ms = now_ms;
    send((uint8_t)(FIRST << 4 | size >> 8), (uint8_t)size, out.data, ISOTP_FRAME - 2, 2);
}

void isotp_poll(uint32_t now_ms) {
    if (in.filled < in.size && now_ms - in.since_ms > ISOTP_TIME_OUT_MS) {
        in.size = in.filled = 0;
    }
    if (out.sent < out.size && now_ms - out.since_ms > ISOTP_TIME_OUT_MS) {
        out.size = out.sent = 0;
    }
    while (out.sent < out.size && out.may_go_on && (out.pause_ms == 0 || now_ms - out.since_ms >= out.pause_ms)) {
        const size_t left = out.size - out.sent, count = left < ISOTP_FRAME - 1 ? left : ISOTP_FRAME - 1;
        if (!send(CONSECUTIVE << 4 | out.next, PADDING, out.data + out.sent, count, 1)) {
            return;
        }
        out.next = (out.next + 1) & 15;
        out.sent += count;
        out.since_ms = now_ms;
        out.may_go_on = out.endless || --out.in_block > 0;
    }
}
