/* The controller on this computer: see host.h. */
#include "host.h"

#include <stdlib.h>
#include <string.h>

enum { ERASED, WRITTEN }; /* of a unit; one whose writing or erasing was cut off counts as written, whatever it reads */

static port_facts facts_now;
const port_facts *const port = &facts_now;

static uint8_t *flash, *units;
static uint32_t flash_size;
static host_counters counters;
static uint32_t left, random_state;
jmp_buf host_power;
static uint32_t crash[PORT_CRASH];
static bool crashed;

void host_new(const port_facts *facts, uint32_t size) {
    facts_now = *facts;
    flash_size = size;
    free(flash);
    free(units);
    flash = malloc(size);
    units = calloc(size / facts->write_size, 1);
    if (!flash || !units) {
        abort();
    }
    memset(flash, 0xFF, size);
    memset(&counters, 0, sizeof counters);
    crashed = false;
    host_cut(0xFFFFFFFFu, 0);
}

void host_cut(uint32_t after, uint32_t seed) {
    left = after;
    random_state = seed * 2654435761u + 1;
}

void host_crash(const uint32_t *words) {
    crashed = words != NULL;
    if (crashed) {
        memcpy(crash, words, sizeof crash);
    }
}

uint8_t *host_flash(void) {
    return flash;
}

host_counters host_count(void) {
    return counters;
}

static uint8_t noise(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return (uint8_t)(random_state >> 11);
}

/* what is left of bytes that were to become `to` (NULL: erased) when power was cut */
static void tear(uint8_t *bytes, const uint8_t *to, uint32_t size) {
    const int how = noise() % 4;
    for (uint32_t k = 0; k < size; k++) {
        const uint8_t target = to ? to[k] : 0xFF, mask = how == 0 ? 0 : how == 1 ? 0xFF : noise();
        bytes[k] = how == 3 ? noise() : (uint8_t)((bytes[k] & ~mask) | (target & mask));
    }
}

/* counts an operation on flash that becomes `to`; does not return where power is cut */
static void operate(uint32_t address, const uint8_t *to, uint32_t size) {
    const bool cut = left == 0;
    left -= left != 0xFFFFFFFFu;
    memset(units + address / facts_now.write_size, to || cut ? WRITTEN : ERASED, size / facts_now.write_size);
    counters.operations++;
    if (cut) {
        tear(flash + address, to, size);
        counters.lost++;
        host_cut(0xFFFFFFFFu, 0);
        longjmp(host_power, 1);
    }
    for (uint32_t k = 0; k < size; k++) {
        flash[address + k] = to ? to[k] : 0xFF;
    }
}

static bool allowed(uint32_t address, size_t size, uint32_t aligned) {
    const bool fits = size <= flash_size && address <= flash_size - size && address % aligned == 0 && size % aligned == 0;
    counters.violations += !fits;
    return fits;
}

bool port_read(uint32_t address, void *to, size_t size) {
    if (!allowed(address, size, 1)) {
        return false;
    }
    memcpy(to, flash + address, size);
    return true;
}

bool port_erase(uint32_t address) {
    if (!allowed(address, facts_now.sector_size, facts_now.sector_size)) {
        return false;
    }
    operate(address, NULL, facts_now.sector_size);
    return true;
}

bool port_write(uint32_t address, const void *from, size_t size) {
    const uint8_t *bytes = from;
    const uint32_t unit = facts_now.write_size;
    if (!allowed(address, size, unit)) {
        return false;
    }
    for (size_t k = 0; k < size; k += unit) {
        if (units[(address + k) / unit] != ERASED) {
            counters.violations++;
            return false;
        }
        operate((uint32_t)(address + k), bytes + k, unit);
    }
    return true;
}

bool port_crash(uint32_t words[PORT_CRASH]) {
    if (crashed) {
        memcpy(words, crash, sizeof crash);
    }
    return crashed;
}

static update_result update_whole(uint32_t running, const uint8_t *image, uint32_t offset, uint32_t size) {
    uint32_t ticket;
    update_result result = update_start(running, offset, size, &ticket);
    if (result == UPDATE_GOOD) {
        result = update_write(ticket, image, size);
    }
    return result == UPDATE_GOOD ? update_end(ticket) : result;
}

bool host_boot(boot_choice *choice) {
    HOST_POWERED(*choice = boot_choose());
}

bool host_check(uint32_t slot, uint32_t counter, image_verdict *verdict, image_facts *facts) {
    HOST_POWERED(*verdict = image_check(slot, counter, facts));
}

bool host_update(uint32_t running, const uint8_t *image, uint32_t offset, uint32_t size, update_result *result) {
    HOST_POWERED(*result = update_whole(running, image, offset, size));
}

bool host_arm(uint32_t slot, image_verdict *verdict) {
    HOST_POWERED(*verdict = boot_arm(slot));
}

bool host_confirm(uint32_t slot, uint32_t evidence, bool *done) {
    HOST_POWERED(*done = boot_confirm(slot, evidence));
}
