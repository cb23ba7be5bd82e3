/* Records: see record.h. */
#include "record.h"

#include <string.h>

#define RECORD_MAGIC 0x626D7362u

static uint32_t crc_of(const boot_record *record) {
    const uint8_t *byte = (const uint8_t *)record;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t k = 0; k < offsetof(boot_record, check); k++) {
        crc ^= byte[k];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        }
    }
    return ~crc;
}

static bool is_slot(uint32_t slot) {
    return slot < PORT_SLOTS || slot == NO_SLOT;
}

static bool read(uint32_t which, boot_record *record) {
    return port_read(port->records[which], record, sizeof *record) && record->magic == RECORD_MAGIC &&
           record->check == crc_of(record) && is_slot(record->active) && is_slot(record->trial) &&
           is_slot(record->failed);
}

/* reads the record that counts; gives its sector, or 2 where there is none */
static uint32_t newest(boot_record *record) {
    boot_record other;
    const bool first = read(0, record), second = read(1, &other);
    if (second && (!first || other.number > record->number)) {
        *record = other;
        return 1;
    }
    return first ? 0 : 2;
}

bool record_load(boot_record *record) {
    if (newest(record) < 2) {
        return true;
    }
    memset(record, 0, sizeof *record);
    record->active = record->trial = record->failed = NO_SLOT;
    return false;
}

bool record_is_twice(void) {
    boot_record first, second;
    return read(0, &first) && read(1, &second) && memcmp(&first, &second, sizeof first) == 0;
}

static bool write(uint32_t which, const boot_record *record) {
    boot_record written;
    return port_erase(port->records[which]) && port_write(port->records[which], record, sizeof *record) &&
           read(which, &written) && memcmp(&written, record, sizeof written) == 0;
}

bool record_store(boot_record *record) {
    boot_record last;
    const uint32_t where = newest(&last), first = where == 0 ? 1 : 0;
    record->magic = RECORD_MAGIC;
    record->number = where < 2 ? last.number + 1 : 1;
    record->check = crc_of(record);
    if (!write(first, record)) {
        return false;
    }
    write(1 - first, record); /* the record counts already; a start repeats this where it failed */
    return true;
}
