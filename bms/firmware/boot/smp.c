/* SMP: see smp.h. A message is a head of eight bytes and a CBOR map. On a serial line it goes with its length before it and
 * its CRC-16 behind it, in base64, in lines: 6, 9 begins the first one, 4, 20 the next ones, a line feed ends each. */
#include "smp.h"

#include <string.h>

#include "boot.h"
#include "cbor.h"
#include "crypto.h"
#include "uds.h"
#include "update.h"

enum { LINE = 128, HEAD = 8, CRC = 2, LENGTH = 2, SHA_LARGEST = 32 };
enum { READ = 0, WRITE = 2 };
enum { OS = 0, IMAGES = 1 };
enum { ECHO = 0, RESET = 5, PARAMETERS = 6, STATE = 0, UPLOAD = 1 };

/* codes of refusals */
enum { UNKNOWN = 1, INVALID = 3, NO_SUCH = 5, BAD_STATE = 6, NOT_SUPPORTED = 8, CORRUPT = 9 };

static const char contactors[] = "contactors are closed";
static const char on_trial[] = "the image that runs is on trial";

static struct {
    uint32_t running;
    /* what comes in */
    uint8_t line[LINE];
    size_t in_line;
    uint8_t in[SMP_BUFFER]; /* length, message, CRC */
    size_t filled;
    /* what goes out */
    uint8_t out[LENGTH + SMP_BUFFER];
    cbor_writer writer;
    /* the image that is being uploaded */
    bool loading;
    uint32_t ticket, at, size;
    uint8_t sha[SHA_LARGEST];
    uint32_t sha_size;
    bool reset;
} smp;

static uint32_t half_at(const uint8_t *at) {
    return (uint32_t)at[0] << 8 | at[1];
}

static void put_half(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* CRC-16/XMODEM */
static uint32_t crc_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0;
    while (size--) {
        crc ^= (uint32_t)*data++ << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xFFFF;
        }
    }
    return crc;
}

/* Answers: what follows the head. A function that serves a command gives true, or has put a refusal and gives false. */

static bool refuse(uint32_t code, const char *reason) {
    smp.writer.size = 0;
    cbor_map(&smp.writer, 2);
    cbor_text(&smp.writer, "rc");
    cbor_number(&smp.writer, code);
    cbor_text(&smp.writer, "rsn");
    cbor_text(&smp.writer, reason);
    return false;
}

static void put_number(const char *key, uint32_t value) {
    cbor_text(&smp.writer, key);
    cbor_number(&smp.writer, value);
}

static void put_flag(const char *key, bool value) {
    cbor_text(&smp.writer, key);
    cbor_flag(&smp.writer, value);
}

/* `1.2.3.4`, the build only where it is not 0 */
static void put_version(const uint32_t version[4]) {
    char text[4 * 11], *at = text;
    for (int k = 0; k < 3 + (version[3] != 0); k++) {
        char digits[10];
        size_t count = 0;
        uint32_t left = version[k];
        do {
            digits[count++] = (char)('0' + left % 10);
            left /= 10;
        } while (left);
        if (k) {
            *at++ = '.';
        }
        while (count) {
            *at++ = digits[--count];
        }
    }
    *at = 0;
    cbor_text(&smp.writer, "version");
    cbor_text(&smp.writer, text);
}

static void put_image(uint32_t slot, const image_facts *facts, const boot_record *record) {
    cbor_map(&smp.writer, 8);
    put_number("slot", slot);
    put_version(facts->version);
    cbor_text(&smp.writer, "hash");
    cbor_bytes(&smp.writer, facts->digest, DIGEST);
    put_flag("bootable", true);
    put_flag("pending", record->trial == slot && record->tries == 0);
    put_flag("confirmed", record->active == slot);
    put_flag("active", smp.running == slot);
    put_flag("permanent", false);
}

static bool images(void) {
    image_facts facts[PORT_SLOTS];
    bool good[PORT_SLOTS];
    uint32_t count = 0;
    boot_record record;
    record_load(&record);
    for (uint32_t slot = 0; slot < PORT_SLOTS; slot++) {
        good[slot] = image_check(slot, 0, &facts[slot]) == IMAGE_GOOD;
        count += good[slot];
    }
    cbor_map(&smp.writer, 1);
    cbor_text(&smp.writer, "images");
    cbor_array(&smp.writer, count);
    for (uint32_t slot = 0; slot < PORT_SLOTS; slot++) {
        if (good[slot]) {
            put_image(slot, &facts[slot], &record);
        }
    }
    return true;
}

static const char *words(image_verdict verdict) {
    static const char *const texts[] = {
        "good", "no image", "malformed", "too large", "signed with another key", "changed after it was signed",
        "signature of another image", "linked for the other slot", "for another board", "other layouts of records",
        "security counter is smaller than that of an image that ran before", "flash cannot be read",
    };
    return texts[verdict];
}

/* the image with this hash shall have its trial */
static bool test(const uint8_t *map, size_t size) {
    cbor_value hash, confirm;
    image_facts facts;
    const uint32_t slot = boot_free_slot(smp.running);
    if (cbor_find(map, size, "confirm", CBOR_FLAG, &confirm) && confirm.number) {
        return refuse(NOT_SUPPORTED, "an image confirms itself, when it has seen that all is well");
    }
    if (!cbor_find(map, size, "hash", CBOR_BYTES, &hash) || hash.number != DIGEST) {
        return refuse(INVALID, "hash: expected 64 bytes");
    }
    if (!uds_port_contactors_open()) {
        return refuse(BAD_STATE, contactors);
    }
    if (slot == NO_SLOT) {
        return refuse(BAD_STATE, on_trial);
    }
    const image_verdict verdict = image_check(slot, 0, &facts);
    if (verdict == IMAGE_GOOD && memcmp(facts.digest, hash.bytes, DIGEST) != 0) {
        return refuse(NO_SUCH, "the free slot has another image");
    }
    const image_verdict armed = boot_arm(slot);
    return armed == IMAGE_GOOD ? images() : refuse(CORRUPT, words(armed));
}

/* the first piece of an image: a new one, or one that goes on */
static bool begin(const uint8_t *map, size_t size) {
    cbor_value length, sha;
    const bool has_sha = cbor_find(map, size, "sha", CBOR_BYTES, &sha) && sha.number <= SHA_LARGEST;
    if (!cbor_find(map, size, "len", CBOR_NUMBER, &length)) {
        return refuse(INVALID, "len is missing");
    }
    if (smp.loading && has_sha && length.number == smp.size && sha.number == smp.sha_size &&
        memcmp(sha.bytes, smp.sha, smp.sha_size) == 0) {
        return true;
    }
    const update_result result = update_start(smp.running, 0, length.number, &smp.ticket);
    if (result != UPDATE_GOOD) {
        return result == UPDATE_NO_SLOT ? refuse(BAD_STATE, on_trial) : refuse(INVALID, "len does not fit into the slot");
    }
    smp.loading = true;
    smp.at = 0;
    smp.size = length.number;
    smp.sha_size = has_sha ? sha.number : 0;
    if (has_sha) {
        memcpy(smp.sha, sha.bytes, sha.number);
    }
    return true;
}

static bool upload(const uint8_t *map, size_t size) {
    cbor_value offset, data;
    if (!cbor_find(map, size, "off", CBOR_NUMBER, &offset) || !cbor_find(map, size, "data", CBOR_BYTES, &data)) {
        return refuse(INVALID, "off or data is missing");
    }
    if (!uds_port_contactors_open()) {
        return refuse(BAD_STATE, contactors);
    }
    if (offset.number == 0 && !begin(map, size)) {
        return false;
    }
    if (!smp.loading) {
        return refuse(BAD_STATE, "an upload begins with off 0");
    }
    if (offset.number == smp.at) { /* another offset is answered with the one that is expected */
        if (update_write(smp.ticket, data.bytes, data.number) != UPDATE_GOOD) {
            smp.loading = false;
            return refuse(UNKNOWN, "not written");
        }
        smp.at += data.number;
        if (smp.at == smp.size) {
            smp.loading = false;
            if (update_end(smp.ticket) != UPDATE_GOOD) {
                return refuse(UNKNOWN, "not written");
            }
        }
    }
    cbor_map(&smp.writer, 1);
    put_number("off", smp.at);
    return true;
}

static bool echo(const uint8_t *map, size_t size) {
    cbor_value text;
    if (!cbor_find(map, size, "d", CBOR_TEXT, &text)) {
        return refuse(INVALID, "d is missing");
    }
    cbor_map(&smp.writer, 1);
    cbor_text(&smp.writer, "r");
    uint8_t *const start = smp.writer.data + smp.writer.size;
    cbor_bytes(&smp.writer, text.bytes, text.number);
    *start |= 1 << 5; /* text, not bytes */
    return true;
}

static bool parameters(void) {
    cbor_map(&smp.writer, 2);
    put_number("buf_size", SMP_BUFFER);
    put_number("buf_count", 1);
    return true;
}

static bool restart(void) {
    if (!uds_port_contactors_open()) {
        return refuse(BAD_STATE, contactors);
    }
    smp.reset = true;
    cbor_map(&smp.writer, 0);
    return true;
}

static bool serve(uint32_t group, uint32_t id, uint32_t operation, const uint8_t *map, size_t size) {
    if (group == OS && id == ECHO) {
        return echo(map, size);
    }
    if (group == OS && id == PARAMETERS && operation == READ) {
        return parameters();
    }
    if (group == OS && id == RESET && operation == WRITE) {
        return restart();
    }
    if (group == IMAGES && id == STATE) {
        return operation == READ ? images() : test(map, size);
    }
    if (group == IMAGES && id == UPLOAD && operation == WRITE) {
        return upload(map, size);
    }
    return refuse(NOT_SUPPORTED, "not known here");
}

static void send(const uint8_t *data, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    enum { IN_LINE = (LINE - 3) / 4 * 3 }; /* bytes of data */
    for (size_t at = 0; at < size;) {
        uint8_t line[LINE] = {at ? 4 : 6, at ? 20 : 9};
        const size_t end = at + IN_LINE < size ? at + IN_LINE : size;
        size_t count = 2;
        for (; at < end; at += 3) {
            const uint32_t second = at + 1 < size ? data[at + 1] : 0, third = at + 2 < size ? data[at + 2] : 0;
            const uint32_t three = (uint32_t)data[at] << 16 | second << 8 | third;
            line[count++] = (uint8_t)digits[three >> 18];
            line[count++] = (uint8_t)digits[three >> 12 & 63];
            line[count++] = (uint8_t)(at + 1 < size ? digits[three >> 6 & 63] : '=');
            line[count++] = (uint8_t)(at + 2 < size ? digits[three & 63] : '=');
        }
        line[count++] = '\n';
        smp_port_send(line, count);
    }
}

/* a whole message, without what frames it */
static void message(const uint8_t *asked, size_t size) {
    uint8_t *const answer = smp.out + LENGTH;
    if (size < HEAD || size - HEAD != half_at(asked + 2)) {
        return;
    }
    const uint32_t operation = asked[0] & 7;
    if (operation != READ && operation != WRITE) {
        return;
    }
    smp.writer = (cbor_writer){answer + HEAD, 0, SMP_BUFFER - HEAD - CRC};
    serve(half_at(asked + 4), asked[7], operation, asked + HEAD, size - HEAD);
    memcpy(answer, asked, HEAD);
    answer[0] = (uint8_t)((asked[0] & 0xF8u) | (operation + 1));
    put_half(answer + 2, (uint32_t)smp.writer.size);
    const size_t whole = HEAD + smp.writer.size;
    put_half(answer + whole, crc_of(answer, whole));
    put_half(smp.out, (uint32_t)(whole + CRC));
    send(smp.out, LENGTH + whole + CRC);
    if (smp.reset) {
        smp.reset = false;
        uds_port_reset();
    }
}

static int digit(uint8_t letter) {
    return letter >= 'A' && letter <= 'Z'   ? letter - 'A'
           : letter >= 'a' && letter <= 'z' ? letter - 'a' + 26
           : letter >= '0' && letter <= '9' ? letter - '0' + 52
           : letter == '+'                  ? 62
           : letter == '/'                  ? 63
                                            : -1;
}

/* base64 of a line, behind what is there already; false where it is none, or there is no room */
static bool decode(const uint8_t *line, size_t size) {
    uint32_t bits = 0;
    int count = 0;
    for (size_t k = 0; k < size && line[k] != '='; k++) {
        const int value = digit(line[k]);
        if (value < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            if (smp.filled == sizeof smp.in) {
                return false;
            }
            smp.in[smp.filled++] = (uint8_t)(bits >> count);
        }
    }
    return true;
}

static void take_line(void) {
    const bool first = smp.in_line >= 2 && smp.line[0] == 6 && smp.line[1] == 9;
    const bool next = smp.in_line >= 2 && smp.line[0] == 4 && smp.line[1] == 20 && smp.filled > 0;
    if (first) {
        smp.filled = 0;
    }
    if (!(first || next) || !decode(smp.line + 2, smp.in_line - 2)) {
        smp.filled = 0;
        return;
    }
    if (smp.filled < LENGTH || smp.filled < LENGTH + half_at(smp.in)) {
        return;
    }
    const size_t size = half_at(smp.in);
    smp.filled = 0;
    if (size > CRC && crc_of(smp.in + LENGTH, size - CRC) == half_at(smp.in + LENGTH + size - CRC)) {
        message(smp.in + LENGTH, size - CRC);
    }
}

void smp_start(uint32_t running) {
    smp.running = running;
    smp.in_line = smp.filled = 0;
    smp.loading = smp.reset = false;
}

void smp_byte(uint8_t byte) {
    if (byte == '\n') {
        take_line();
        smp.in_line = 0;
    } else if (byte != '\r' && smp.in_line < sizeof smp.line) {
        smp.line[smp.in_line++] = byte; /* a line that is too long ends in a sum that does not fit */
    }
}

bool smp_is_in_use(void) {
    return smp.loading;
}
