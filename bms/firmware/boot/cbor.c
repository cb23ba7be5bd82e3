/* CBOR: see cbor.h. An item begins with three bits for its kind and five for its value, or for the bytes that hold it. */
#include "cbor.h"

#include <string.h>

enum { NUMBER = 0, BYTES = 2, TEXT = 3, ARRAY = 4, MAP = 5, SIMPLE = 7 };
enum { FALSE = 20, TRUE = 21, ENDLESS = 31, BREAK = 0xFF };

typedef struct {
    const uint8_t *at, *end;
} reader;

/* the head of an item; false where there is none, or one that takes more than four bytes */
static bool head(reader *from, uint8_t *kind, uint32_t *value) {
    if (from->at == from->end) {
        return false;
    }
    const uint8_t first = *from->at++, low = first & 31;
    *kind = first >> 5;
    *value = low;
    if (low < 24) {
        return true;
    }
    const size_t count = low == 24 ? 1 : low == 25 ? 2 : low == 26 ? 4 : 0;
    if (count == 0 || (size_t)(from->end - from->at) < count) {
        return false;
    }
    *value = 0;
    for (size_t k = 0; k < count; k++) {
        *value = *value << 8 | *from->at++;
    }
    return true;
}

static bool item(reader *from, cbor_value *value) {
    uint8_t kind;
    if (!head(from, &kind, &value->number)) {
        return false;
    }
    value->bytes = from->at;
    switch (kind) {
    case NUMBER:
        value->kind = CBOR_NUMBER;
        return true;
    case BYTES:
    case TEXT:
        value->kind = kind == BYTES ? CBOR_BYTES : CBOR_TEXT;
        if ((size_t)(from->end - from->at) < value->number) {
            return false;
        }
        from->at += value->number;
        return true;
    case SIMPLE:
        value->kind = value->number == FALSE || value->number == TRUE ? CBOR_FLAG : CBOR_OTHER;
        value->number = value->number == TRUE;
        return true;
    default:
        return false; /* nothing inside of a map has an inside itself */
    }
}

bool cbor_find(const uint8_t *data, size_t size, const char *key, cbor_kind kind, cbor_value *value) {
    reader from = {data, data + size};
    uint8_t first;
    uint32_t pairs = 0xFFFFFFFFu;
    if (size == 0) {
        return false;
    }
    if (*data == (MAP << 5 | ENDLESS)) {
        from.at++;
    } else if (!head(&from, &first, &pairs) || first != MAP) {
        return false;
    }
    while (pairs-- && from.at != from.end && *from.at != BREAK) {
        cbor_value name;
        if (!item(&from, &name) || name.kind != CBOR_TEXT || !item(&from, value)) {
            return false;
        }
        if (name.number == strlen(key) && memcmp(name.bytes, key, name.number) == 0) {
            return value->kind == kind;
        }
    }
    return false;
}

static void put(cbor_writer *to, const void *bytes, size_t size) {
    if (size <= to->room - to->size) {
        memcpy(to->data + to->size, bytes, size);
        to->size += size;
    } else {
        to->room = to->size; /* what does not fit ends the message; the other side sees that it is not whole */
    }
}

static void put_head(cbor_writer *to, uint8_t kind, uint32_t value) {
    const uint8_t bytes[5] = {(uint8_t)(kind << 5 | 26), (uint8_t)(value >> 24), (uint8_t)(value >> 16),
                              (uint8_t)(value >> 8), (uint8_t)value};
    if (value < 24) {
        const uint8_t small = (uint8_t)(kind << 5 | value);
        put(to, &small, 1);
    } else {
        put(to, bytes, sizeof bytes);
    }
}

void cbor_map(cbor_writer *to, uint32_t pairs) {
    put_head(to, MAP, pairs);
}

void cbor_array(cbor_writer *to, uint32_t items) {
    put_head(to, ARRAY, items);
}

void cbor_number(cbor_writer *to, uint32_t value) {
    put_head(to, NUMBER, value);
}

void cbor_flag(cbor_writer *to, bool value) {
    put_head(to, SIMPLE, value ? TRUE : FALSE);
}

void cbor_bytes(cbor_writer *to, const void *bytes, uint32_t size) {
    put_head(to, BYTES, size);
    put(to, bytes, size);
}

void cbor_text(cbor_writer *to, const char *text) {
    put_head(to, TEXT, (uint32_t)strlen(text));
    put(to, text, strlen(text));
}
