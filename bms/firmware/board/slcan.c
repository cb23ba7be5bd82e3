/* SLCAN: see slcan.h. */
#include "slcan.h"

#include "board.h"

enum { LONGEST = 26, HEX_STANDARD = 3, HEX_EXTENDED = 8, MOST_DATA = 8 }; /* of a line: T, identifier, length, data */

typedef enum { CLOSED, OPEN, LISTENING } mode;

static const char digits[] = "0123456789ABCDEF";

static char line[LONGEST];
static uint32_t filled; /* characters of the line, also those that found no room in it */
static mode channel;
static slcan_counts counts;

void slcan_start(void) {
    filled = 0;
    channel = CLOSED;
    counts = (slcan_counts){0};
}

void slcan_resume(void) {
    channel = OPEN;
}

static void say(const char *text, uint32_t size) {
    (void)board_can_send(text, size); /* an answer that finds no room is one that nobody reads */
}

/* the value of `count` hexadecimal digits, or false */
static bool hex(const char *from, uint32_t count, uint32_t *value) {
    uint32_t found = 0;
    for (uint32_t k = 0; k < count; k++) {
        const char c = from[k];
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint32_t)(c - 'A') + 10;
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint32_t)(c - 'a') + 10;
        } else {
            return false;
        }
        found = found << 4 | digit;
    }
    *value = found;
    return true;
}

/* the frame of a line that begins with t, T, r or R; false where it is none */
static bool parsed(slcan_frame *frame) {
    const bool extended = line[0] == 'T' || line[0] == 'R', remote = line[0] == 'r' || line[0] == 'R';
    const uint32_t wide = extended ? HEX_EXTENDED : HEX_STANDARD;
    uint32_t identifier, length, byte;
    if (filled < 2 + wide || !hex(line + 1, wide, &identifier) || !hex(line + 1 + wide, 1, &length)) {
        return false;
    }
    if (identifier > (extended ? 0x1FFFFFFFu : 0x7FFu) || length > MOST_DATA) {
        return false;
    }
    if (filled != 2 + wide + (remote ? 0 : 2 * length)) {
        return false;
    }
    *frame = (slcan_frame){identifier | (extended ? SLCAN_EXTENDED : 0), remote, (uint8_t)length, {0}};
    for (uint32_t k = 0; k < length && !remote; k++) {
        if (!hex(line + 2 + wide + 2 * k, 2, &byte)) {
            return false;
        }
        frame->data[k] = (uint8_t)byte;
    }
    return true;
}

/* a line whose letter `line[0]` may be followed by `digits_expected` hexadecimal ones, none above `largest` */
static bool setting(uint32_t digits_expected, uint32_t largest) {
    uint32_t value;
    return filled == 1 + digits_expected && hex(line + 1, digits_expected, &value) && value <= largest;
}

static bool open_as(mode how) {
    if (filled != 1 || channel != CLOSED) {
        return false;
    }
    channel = how;
    counts.opened++;
    return true;
}

static bool shut(void) {
    if (filled != 1 || channel == CLOSED) {
        return false;
    }
    channel = CLOSED;
    return true;
}

/* carries out a line that is no frame; false where it is not understood or not allowed */
static bool carried_out(void) {
    if (filled == 0) {
        return true;
    }
    switch (line[0]) {
    case 'S':
        return channel == CLOSED && setting(1, 8);
    case 's':
        return channel == CLOSED && setting(4, 0xFFFF);
    case 'O':
        return open_as(OPEN);
    case 'L':
        return open_as(LISTENING);
    case 'C':
        return shut();
    case 'Z':
        return channel == CLOSED && setting(1, 0);
    case 'V':
        if (filled == 1) {
            say("V1013", 5);
        }
        return filled == 1;
    case 'N':
        if (filled == 1) {
            say("NRBMS", 5);
        }
        return filled == 1;
    default:
        return false;
    }
}

/* a whole line; true where it is a frame that has come */
static bool taken(slcan_frame *frame) {
    bool good, is_frame = false;
    if (filled > LONGEST) {
        good = false;
    } else if (filled && (line[0] == 't' || line[0] == 'T' || line[0] == 'r' || line[0] == 'R')) {
        good = is_frame = channel == OPEN && parsed(frame);
    } else {
        good = carried_out();
    }
    filled = 0;
    say(good ? "\r" : "\a", 1);
    counts.refused += !good;
    counts.received += is_frame;
    return is_frame;
}

bool slcan_poll(slcan_frame *frame) {
    uint8_t byte;
    while (board_can_receive(&byte)) {
        if (byte == '\r') {
            if (taken(frame)) {
                return true;
            }
            continue;
        }
        if (filled < LONGEST) {
            line[filled] = (char)byte;
        }
        filled += filled <= LONGEST; /* one more than fits: the line is too long */
    }
    return false;
}

bool slcan_send(const slcan_frame *frame) {
    const bool extended = frame->identifier & SLCAN_EXTENDED;
    const uint32_t wide = extended ? HEX_EXTENDED : HEX_STANDARD;
    const uint32_t length = frame->length < MOST_DATA ? frame->length : MOST_DATA;
    char text[LONGEST + 1];
    uint32_t at = 0;
    if (channel == CLOSED) {
        return false;
    }
    text[at++] = frame->remote ? (extended ? 'R' : 'r') : (extended ? 'T' : 't');
    for (uint32_t k = wide; k-- > 0;) {
        text[at++] = digits[frame->identifier >> 4 * k & (k == 7 ? 1 : 15)];
    }
    text[at++] = digits[length];
    for (uint32_t k = 0; k < length && !frame->remote; k++) {
        text[at++] = digits[frame->data[k] >> 4];
        text[at++] = digits[frame->data[k] & 15];
    }
    text[at++] = '\r';
    const bool fits = board_can_send(text, at);
    counts.sent += fits;
    counts.unsent += !fits;
    return fits;
}

bool slcan_is_open(void) {
    return channel != CLOSED;
}

slcan_counts slcan_count(void) {
    return counts;
}
