/* A board in memory, for tests of the controller's C on this computer: what comes and goes lies in buffers. */
#include <string.h>

#include "board.h"

enum { ROOM = 1 << 20 };

const uint32_t board_timer_hz = 1000000;

static uint8_t can_in[ROOM], can_out[ROOM];
static size_t in_end, in_taken, out_end;
static size_t out_room = ROOM;
static uint32_t now_ms, lost;
static uint8_t contactors;

void host_new(void) {
    in_end = in_taken = out_end = 0;
    out_room = ROOM;
    now_ms = lost = 0;
    contactors = 0;
}

/* bytes come to the CAN port */
void host_can_arrive(const uint8_t *data, size_t size) {
    if (in_taken == in_end) {
        in_taken = in_end = 0;
    }
    memcpy(can_in + in_end, data, size);
    in_end += size;
}

/* takes what the CAN port has sent: the number of bytes at `to` */
size_t host_can_sent(uint8_t *to) {
    const size_t size = out_end;
    memcpy(to, can_out, size);
    out_end = 0;
    return size;
}

/* so many bytes fit into what waits to be sent */
void host_can_room(size_t size) { out_room = size; }

uint8_t host_contactors(void) { return contactors; }

bool board_can_receive(uint8_t *byte) {
    if (in_taken == in_end) {
        return false;
    }
    *byte = can_in[in_taken++];
    return true;
}

bool board_can_send(const void *data, size_t size) {
    if (out_end + size > out_room) {
        return false;
    }
    memcpy(can_out + out_end, data, size);
    out_end += size;
    return true;
}

uint32_t board_can_lost(void) { return lost; }
bool board_receive(uint8_t *byte) { (void)byte; return false; }
void board_send(const void *data, size_t size) { (void)data; (void)size; }
void host_tick(void) { now_ms++; }
void board_outputs(uint8_t asked) { contactors = asked; }
void board_timer_start(void) { now_ms = 0; }
uint32_t board_timer_ticks(void) { return now_ms * 1000; }
