/* Images: see image.h. First the structure, then the signature, and only then what the image says of itself. */
#include "image.h"

#include <string.h>

#include "crypto.h"

enum {
    HEADER = 32,
    LARGEST_HEADER = 4096,
    AREA = 4,
    ENTRY = 4,
    PROTECTED_LARGEST = AREA + 4 * ENTRY + 4 + 2 * PORT_HASH + PORT_BOARD,
    UNPROTECTED = AREA + 3 * (ENTRY + 64), /* hash, hash of the key, signature */
    PIECE = 256,
};

#define IMAGE_MAGIC 0x96F3B83Du
#define PROTECTED_MAGIC 0x6908u
#define UNPROTECTED_MAGIC 0x6907u
#define ROM_FIXED 0x100u

/* kinds of TLV */
enum { KEY_HASH = 0x01, SHA512 = 0x12, ED25519 = 0x24, COUNTER = 0x50, CONFIG = 0xA0, LAYOUTS = 0xA1, BOARD = 0xA2 };

typedef struct {
    uint32_t address, header_size, protected_size, program_size, flags;
} header;

/* places in an area, NULL where the TLV is missing */
typedef struct {
    const uint8_t *key_hash, *digest, *signature, *counter, *config, *layouts, *board;
    uint32_t board_size;
} tlvs;

static uint32_t half_at(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t word_at(const uint8_t *at) {
    return half_at(at) | half_at(at + 2) << 16;
}

static image_verdict read_header(uint32_t slot, header *found, image_facts *facts) {
    uint8_t raw[HEADER];
    if (!port_read(port->slots[slot], raw, sizeof raw)) {
        return IMAGE_UNREADABLE;
    }
    if (word_at(raw) != IMAGE_MAGIC) {
        return IMAGE_ABSENT;
    }
    *found = (header){word_at(raw + 4), half_at(raw + 8), half_at(raw + 10), word_at(raw + 12), word_at(raw + 16)};
    const uint32_t version[4] = {raw[20], raw[21], half_at(raw + 22), word_at(raw + 24)};
    memcpy(facts->version, version, sizeof version);
    if (found->header_size < HEADER || found->header_size > LARGEST_HEADER || found->program_size == 0 ||
        found->protected_size < AREA || found->protected_size > PROTECTED_LARGEST || (found->flags & ~ROM_FIXED)) {
        return IMAGE_MALFORMED;
    }
    const uint32_t around = found->header_size + found->protected_size + UNPROTECTED;
    if (around > port->slot_size || found->program_size > port->slot_size - around) {
        return IMAGE_TOO_LARGE;
    }
    facts->start = port->slots[slot] + found->header_size;
    facts->size = around + found->program_size;
    return IMAGE_GOOD;
}

/* where the value of a TLV belongs; NULL for one that has no place here, with a wrong length, or twice */
static const uint8_t **place_of(tlvs *found, uint32_t kind, uint32_t length, bool is_protected) {
    const struct {
        uint32_t kind, length;
        bool is_protected;
        const uint8_t **place;
    } known[] = {
        {COUNTER, 4, true, &found->counter},         {CONFIG, PORT_HASH, true, &found->config},
        {LAYOUTS, PORT_HASH, true, &found->layouts}, {SHA512, DIGEST, false, &found->digest},
        {KEY_HASH, DIGEST, false, &found->key_hash}, {ED25519, SIGNATURE, false, &found->signature},
    };
    if (kind == BOARD && is_protected && length > 0 && length <= PORT_BOARD && !found->board) {
        found->board_size = length;
        return &found->board;
    }
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        if (kind == known[k].kind && length == known[k].length && is_protected == known[k].is_protected) {
            return *known[k].place ? NULL : known[k].place;
        }
    }
    return NULL;
}

/* the TLVs of an area that has `size` bytes; false where it is anything but such an area */
static bool read_area(const uint8_t *area, uint32_t size, bool is_protected, tlvs *found) {
    if (half_at(area) != (is_protected ? PROTECTED_MAGIC : UNPROTECTED_MAGIC) || half_at(area + 2) != size) {
        return false;
    }
    for (uint32_t at = AREA; at < size;) {
        if (size - at < ENTRY) {
            return false;
        }
        const uint32_t kind = half_at(area + at), length = half_at(area + at + 2);
        at += ENTRY;
        if (length > size - at) {
            return false;
        }
        const uint8_t **place = place_of(found, kind, length, is_protected);
        if (!place) {
            return false;
        }
        *place = area + at;
        at += length;
    }
    return true;
}

/* the hash of `size` bytes of flash */
static bool digest_flash(uint32_t address, uint32_t size, uint8_t digest[DIGEST]) {
    uint8_t piece[PIECE];
    digest_state state;
    digest_start(&state);
    while (size) {
        const uint32_t count = size < PIECE ? size : PIECE;
        if (!port_read(address, piece, count)) {
            return false;
        }
        digest_add(&state, piece, count);
        address += count;
        size -= count;
    }
    digest_end(&state, digest);
    return true;
}

static bool is_our_key(const uint8_t *key_hash) {
    /* MCUboot hashes a key with the frame that X.509 puts around it (RFC 8410) */
    static const uint8_t frame[] = {0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00};
    uint8_t digest[DIGEST];
    digest_state state;
    digest_start(&state);
    digest_add(&state, frame, sizeof frame);
    digest_add(&state, port->image_key, KEY);
    digest_end(&state, digest);
    return same(digest, key_hash, DIGEST);
}

static image_verdict check_signature(uint32_t slot, uint32_t signed_size, const tlvs *found) {
    uint8_t digest[DIGEST];
    if (!is_our_key(found->key_hash)) {
        return IMAGE_OTHER_KEY;
    }
    if (!digest_flash(port->slots[slot], signed_size, digest)) {
        return IMAGE_UNREADABLE;
    }
    if (!same(digest, found->digest, DIGEST)) {
        return IMAGE_CHANGED;
    }
    return signature_fits(found->signature, port->image_key, digest, DIGEST) ? IMAGE_GOOD : IMAGE_FORGED;
}

/* whether an image that is signed is meant for this slot of this controller */
static image_verdict check_facts(uint32_t slot, uint32_t counter, const header *head, const image_facts *facts) {
    if (head->address != (head->flags & ROM_FIXED ? port->slots[slot] : 0)) {
        return IMAGE_OTHER_SLOT;
    }
    if (memcmp(facts->board, port->board, PORT_BOARD) != 0) {
        return IMAGE_OTHER_BOARD;
    }
    if (memcmp(facts->layouts, port->layouts, PORT_HASH) != 0) {
        return IMAGE_OTHER_LAYOUTS;
    }
    return facts->counter < counter ? IMAGE_OLDER : IMAGE_GOOD;
}

image_verdict image_check(uint32_t slot, uint32_t counter, image_facts *facts) {
    uint8_t inner[PROTECTED_LARGEST], outer[UNPROTECTED];
    header head;
    tlvs found = {0};
    memset(facts, 0, sizeof *facts);
    image_verdict verdict = read_header(slot, &head, facts);
    if (verdict != IMAGE_GOOD) {
        return verdict;
    }
    const uint32_t at = port->slots[slot] + head.header_size + head.program_size;
    if (!port_read(at, inner, head.protected_size) || !port_read(at + head.protected_size, outer, sizeof outer)) {
        return IMAGE_UNREADABLE;
    }
    if (!read_area(inner, head.protected_size, true, &found) || !read_area(outer, sizeof outer, false, &found) ||
        !found.counter || !found.config || !found.layouts || !found.board || !found.key_hash || !found.digest ||
        !found.signature) {
        return IMAGE_MALFORMED;
    }
    verdict = check_signature(slot, facts->size - UNPROTECTED, &found);
    if (verdict != IMAGE_GOOD) {
        return verdict;
    }
    facts->counter = word_at(found.counter);
    memcpy(facts->config, found.config, PORT_HASH);
    memcpy(facts->layouts, found.layouts, PORT_HASH);
    memcpy(facts->board, found.board, found.board_size);
    memcpy(facts->digest, found.digest, DIGEST);
    return check_facts(slot, counter, &head, facts);
}
