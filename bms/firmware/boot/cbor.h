/* The part of CBOR (RFC 8949) that SMP needs: one map with text as keys, and numbers, bytes, text and flags as values. */
#ifndef CBOR_H
#define CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { CBOR_NUMBER, CBOR_BYTES, CBOR_TEXT, CBOR_FLAG, CBOR_OTHER } cbor_kind;

typedef struct {
    cbor_kind kind;
    uint32_t number;      /* of a number or flag; bytes of the rest */
    const uint8_t *bytes; /* of bytes or text */
} cbor_value;

/* The value under `key` in the map that `data` is. False where there is none of this kind, or the map is not one. */
bool cbor_find(const uint8_t *data, size_t size, const char *key, cbor_kind kind, cbor_value *value);

/* a message that is being made; `size` stays at or below `room` */
typedef struct {
    uint8_t *data;
    size_t size, room;
} cbor_writer;

void cbor_map(cbor_writer *to, uint32_t pairs);
void cbor_array(cbor_writer *to, uint32_t items);
void cbor_number(cbor_writer *to, uint32_t value);
void cbor_flag(cbor_writer *to, bool value);
void cbor_bytes(cbor_writer *to, const void *bytes, uint32_t size);
void cbor_text(cbor_writer *to, const char *text);

#endif
