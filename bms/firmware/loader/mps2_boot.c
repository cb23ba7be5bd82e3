/* What the boot loader asks of the board: a flash, randomness, and what a crash has left.
 *
 * QEMU emulates no flash here. Its large memory stands in for one: no reset touches it, and the emulator can keep it in a
 * file. It is held to the rules of silicon: a unit is written once after its sector was erased, aligned and whole. Who
 * starts the emulator fills it with 0xFF before the first start, and puts 64 random bytes at its end.
 */
#include <string.h>

#include "cortexm.h"
#include "crypto.h"
#include "port.h"
#include "uds.h"

#define SIZE (3u << 20)  /* of what can be erased and written */
#define MARKS (3u << 20) /* a byte for each unit: ERASED until it was written, or its writing has begun */
#define SEED ((4u << 20) - DIGEST)
enum { ERASED = 0xFF, WRITTEN = 0 };

extern uint8_t link_slots[]; /* all of it */
extern const port_facts link_facts;
const port_facts *const port = &link_facts;

static bool is_inside(uint32_t address, size_t size, uint32_t aligned) {
    const uint32_t at = address - (uint32_t)(uintptr_t)link_slots;
    return at <= SIZE && size <= SIZE - at && at % aligned == 0 && size % aligned == 0;
}

static uint8_t *place(uint32_t address) {
    return link_slots + (address - (uint32_t)(uintptr_t)link_slots);
}

static uint8_t *mark(uint32_t address) {
    return link_slots + MARKS + (address - (uint32_t)(uintptr_t)link_slots) / port->write_size;
}

bool port_read(uint32_t address, void *to, size_t size) {
    if (!is_inside(address, size, 1)) {
        return false;
    }
    memcpy(to, place(address), size);
    return true;
}

bool port_erase(uint32_t address) {
    if (!is_inside(address, port->sector_size, port->sector_size)) {
        return false;
    }
    memory_lock(false);
    memset(mark(address), WRITTEN, port->sector_size / port->write_size);
    memset(place(address), 0xFF, port->sector_size);
    memset(mark(address), ERASED, port->sector_size / port->write_size);
    memory_lock(true);
    return true;
}

bool port_write(uint32_t address, const void *from, size_t size) {
    const uint8_t *bytes = from;
    const uint32_t unit = port->write_size;
    if (!is_inside(address, size, unit)) {
        return false;
    }
    for (uint32_t k = 0; k < size; k += unit) {
        if (*mark(address + k) != ERASED) {
            return false;
        }
        memory_lock(false);
        *mark(address + k) = WRITTEN;
        memcpy(place(address + k), bytes + k, unit);
        memory_lock(true);
    }
    return true;
}

bool port_crash(uint32_t words[PORT_CRASH]) {
    const crash_record last = crash_last();
    _Static_assert(sizeof last == PORT_CRASH * sizeof *words, "the boot loader keeps all of it");
    memcpy(words, &last, sizeof last);
    return last.cause != 0;
}

/* The board has no source of randomness: there is a seed, and each hash of it gives the next seed and what is asked for. */
void uds_port_random(uint8_t *to, size_t size) {
    uint8_t digest[DIGEST];
    digest_state state;
    for (uint8_t use = 0; use < 2; use++) {
        digest_start(&state);
        digest_add(&state, &use, sizeof use);
        digest_add(&state, link_slots + SEED, DIGEST);
        digest_end(&state, digest);
        if (use == 0) {
            memcpy(to, digest, size < DIGEST ? size : DIGEST);
        }
    }
    memory_lock(false);
    memcpy(link_slots + SEED, digest, DIGEST);
    memory_lock(true);
}
