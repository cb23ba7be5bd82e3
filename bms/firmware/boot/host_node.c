/* The controller on this computer as a node on a bus: frames go in and out through Python. */
#include <string.h>
#include <sys/random.h>

#include "host.h"
#include "isotp.h"
#include "smp.h"
#include "uds.h"

enum { QUEUE = 256, SAID = 8192 };

static uint8_t queue[QUEUE][ISOTP_FRAME];
static size_t first, count;
static uint8_t said[SAID];
static size_t said_count;
static bool contactors_open = true, wants_reset;

bool isotp_port_send(const uint8_t frame[ISOTP_FRAME]) {
    if (count == QUEUE) {
        return false;
    }
    memcpy(queue[(first + count++) % QUEUE], frame, ISOTP_FRAME);
    return true;
}

bool uds_port_contactors_open(void) {
    return contactors_open;
}

void uds_port_random(uint8_t *to, size_t size) {
    while (getentropy(to, size)) {
    }
}

void uds_port_reset(void) {
    wants_reset = true;
}

void smp_port_send(const void *data, size_t size) {
    if (size <= SAID - said_count) {
        memcpy(said + said_count, data, size);
        said_count += size;
    }
}

static void start(const boot_choice *choice) {
    uds_start(choice->slot, &choice->facts);
    smp_start(choice->slot);
}

bool host_node_start(const boot_choice *choice) {
    count = said_count = 0;
    wants_reset = false;
    HOST_POWERED(start(choice));
}

static void take(const uint8_t *data, size_t size) {
    for (size_t k = 0; k < size; k++) {
        smp_byte(data[k]);
    }
}

bool host_node_bytes(const uint8_t *data, size_t size) {
    HOST_POWERED(take(data, size));
}

size_t host_node_said(uint8_t *to, size_t room) {
    const size_t size = said_count < room ? said_count : room;
    memcpy(to, said, size);
    said_count = 0;
    return size;
}

bool host_node_frame(const uint8_t *data, size_t size, uint32_t now_ms) {
    HOST_POWERED(uds_frame(data, size, now_ms));
}

bool host_node_poll(uint32_t now_ms) {
    HOST_POWERED(uds_poll(now_ms));
}

bool host_node_take(uint8_t frame[8]) {
    if (count == 0) {
        return false;
    }
    memcpy(frame, queue[first], ISOTP_FRAME);
    first = (first + 1) % QUEUE;
    count--;
    return true;
}

void host_node_contactors(bool open) {
    contactors_open = open;
}

bool host_node_wants_reset(void) {
    const bool wanted = wants_reset;
    wants_reset = false;
    return wanted;
}
