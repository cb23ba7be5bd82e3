/* Updates: see update.h. */
#include "update.h"

#include <string.h>

#include "boot.h"

static struct {
    bool open;
    uint32_t ticket;
    uint32_t slot;
    uint32_t at, end; /* offsets in the slot: of the next byte, and behind the last one */
    uint32_t held;    /* bytes that wait for their unit to be full */
    uint8_t unit[PORT_WRITE_LARGEST];
} update;

update_result update_start(uint32_t running, uint32_t offset, uint32_t size, uint32_t *ticket) {
    const uint32_t slot = boot_free_slot(running);
    update.open = false;
    if (slot == NO_SLOT) {
        return UPDATE_NO_SLOT;
    }
    if (size == 0 || offset % port->sector_size || offset > port->slot_size || size > port->slot_size - offset) {
        return UPDATE_OUT_OF_RANGE;
    }
    if (!boot_open(slot)) {
        return UPDATE_FLASH;
    }
    update.open = true;
    *ticket = ++update.ticket;
    update.slot = slot;
    update.at = offset;
    update.end = offset + size;
    update.held = 0;
    return UPDATE_GOOD;
}

static bool flush(void) {
    const uint32_t start = update.at - update.held;
    if (start % port->sector_size == 0 && !port_erase(port->slots[update.slot] + start)) {
        return false;
    }
    memset(update.unit + update.held, 0xFF, port->write_size - update.held);
    update.held = 0;
    return port_write(port->slots[update.slot] + start, update.unit, port->write_size);
}

update_result update_write(uint32_t ticket, const uint8_t *data, size_t size) {
    if (!update.open || ticket != update.ticket) {
        return UPDATE_NOT_OPEN;
    }
    if (size > update.end - update.at) {
        return UPDATE_OUT_OF_RANGE;
    }
    while (size--) {
        update.unit[update.held++] = *data++;
        update.at++;
        if (update.held == port->write_size && !flush()) {
            update.open = false;
            return UPDATE_FLASH;
        }
    }
    return UPDATE_GOOD;
}

bool update_erases(size_t size) {
    const uint32_t start = update.at - update.held;
    return start % port->sector_size == 0 ||
           start / port->sector_size != (start + update.held + size) / port->sector_size;
}

update_result update_end(uint32_t ticket) {
    if (!update.open || ticket != update.ticket || update.at != update.end) {
        return UPDATE_NOT_OPEN;
    }
    update.open = false;
    return update.held == 0 || flush() ? UPDATE_GOOD : UPDATE_FLASH;
}
