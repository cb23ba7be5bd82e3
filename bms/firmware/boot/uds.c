/* UDS: see uds.h. */
#include "uds.h"

#include <string.h>

#include "boot.h"
#include "crypto.h"
#include "isotp.h"
#include "update.h"

enum { DEFAULT_SESSION = 1, PROGRAMMING_SESSION = 2, EXTENDED_SESSION = 3 };
enum { POSITIVE = 0x40, NEGATIVE = 0x7F, QUIET = 0x80, SUBFUNCTION = 0x7F };

/* announced by 0x10: an answer, or "pending", within 50 ms, and the answer within 5 s of it, in units of 10 ms */
enum { P2_MS = 50, P2_STAR_10MS = 500 };

/* Without a request for so long, what was allowed is allowed no longer. A flasher whose answer was lost waits P2* for it, and
 * then asks again: the 5 s that are usual would end the session just then. */
enum { SESSION_MS = 3 * 10 * P2_STAR_10MS };

enum { BLOCK = 2048, SUMS_LARGEST = 32, CHALLENGE = 32, ALGORITHM = 16 };

/* negative responses */
enum {
    NO_SERVICE = 0x11,
    NO_SUBFUNCTION = 0x12,
    WRONG_LENGTH = 0x13,
    NOT_NOW = 0x22, /* contactors are closed, or an image is on trial */
    WRONG_ORDER = 0x24,
    OUT_OF_RANGE = 0x31,
    NOT_AUTHENTICATED = 0x34,
    NOT_OWNER = 0x58,
    FLASH_FAILED = 0x72,
    WRONG_BLOCK = 0x73,
    PENDING = 0x78,
    NOT_IN_SESSION = 0x7F,
};

/* steps of 0x29, and what comes of them */
enum { DEAUTHENTICATE = 0, ASK = 5, PROVE = 6, CONFIGURATION = 8 };
enum { ASYMMETRIC = 3, DEAUTHENTICATED = 0x10, AUTHENTICATED = 0x12 };

/* ed25519 as an object identifier, 1.3.101.112 (RFC 8410) */
static const uint8_t algorithm[ALGORITHM] = {0x06, 0x03, 0x2B, 0x65, 0x70};
static const char purpose[] = "rackbms: open for an update"; /* what is signed begins so: it is good for nothing else */

static struct {
    uint32_t running;
    image_facts facts;
    uint8_t session;
    bool authenticated, asked;
    uint8_t challenge[CHALLENGE];
    bool loading;
    uint32_t ticket; /* of the update */
    uint32_t blocks; /* that were written */
    uint32_t since_ms;
    bool reset;
    /* the answer to the request that is being served */
    uint8_t answer[ISOTP_ANSWER];
    size_t size;
    uint32_t now_ms;
} uds;

static uint32_t half_at(const uint8_t *at) {
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t word_at(const uint8_t *at) {
    return half_at(at) << 16 | half_at(at + 2);
}

static void put(const void *bytes, size_t size) {
    memcpy(uds.answer + uds.size, bytes, size);
    uds.size += size;
}

static void put_number(uint32_t value, int bytes) {
    while (bytes--) {
        uds.answer[uds.size++] = (uint8_t)(value >> 8 * bytes);
    }
}

/* a long operation follows: the other side shall wait */
static void pending(uint8_t service) {
    const uint8_t answer[3] = {NEGATIVE, service, PENDING};
    isotp_send(answer, sizeof answer, uds.now_ms);
}

static void leave(uint8_t session) {
    uds.session = session;
    uds.authenticated = uds.asked = uds.loading = false;
}

void uds_start(uint32_t running, const image_facts *facts) {
    uds.running = running;
    uds.facts = *facts;
    uds.reset = false;
    leave(DEFAULT_SESSION);
    isotp_reset();
}

/* why nothing may be written now; 0 where it may */
static uint8_t forbidden(void) {
    if (uds.session != PROGRAMMING_SESSION) {
        return NOT_IN_SESSION;
    }
    if (!uds.authenticated) {
        return NOT_AUTHENTICATED;
    }
    return uds_port_contactors_open() ? 0 : NOT_NOW;
}

/* Services: each takes a request from its second byte on, puts what follows the first byte of the answer, and gives 0 or the
 * negative response. */

static uint8_t session(const uint8_t *asked, size_t size) {
    const uint8_t to = size == 1 ? asked[0] & SUBFUNCTION : 0;
    if (size != 1) {
        return WRONG_LENGTH;
    }
    if (to < DEFAULT_SESSION || to > EXTENDED_SESSION) {
        return NO_SUBFUNCTION;
    }
    if (to == PROGRAMMING_SESSION && !uds_port_contactors_open()) {
        return NOT_NOW;
    }
    leave(to);
    put_number(to, 1);
    put_number(P2_MS, 2);
    put_number(P2_STAR_10MS, 2);
    return 0;
}

static uint8_t restart(const uint8_t *asked, size_t size) {
    const uint8_t no = forbidden();
    if (size != 1) {
        return WRONG_LENGTH;
    }
    if ((asked[0] & SUBFUNCTION) != 1) {
        return NO_SUBFUNCTION;
    }
    if (no) {
        return no;
    }
    uds.reset = true;
    put_number(1, 1);
    return 0;
}

static void put_state(void) {
    boot_record record;
    record_load(&record);
    const uint32_t slots[] = {uds.running, record.active, record.trial, record.failed, boot_free_slot(uds.running)};
    for (size_t k = 0; k < sizeof slots / sizeof *slots; k++) {
        put_number(slots[k], 1); /* 0xFF: none */
    }
    put_number(record.event, 1);
    put_number(record.verdict, 1);
    put_number(uds_port_contactors_open(), 1);
    put_number(record.counter, 4);
    put_number(port->sector_size, 4);
    put_number(port->slot_size, 4);
    put_number(uds.running < PORT_SLOTS ? uds.facts.counter : 0, 4);
    put(uds.facts.config, PORT_HASH);
    put(port->layouts, PORT_HASH);
    put(port->board, PORT_BOARD);
}

static void put_version(void) {
    put_number(uds.facts.version[0], 1);
    put_number(uds.facts.version[1], 1);
    put_number(uds.facts.version[2], 2);
    put_number(uds.facts.version[3], 4);
}

static uint8_t read_data(const uint8_t *asked, size_t size) {
    boot_record record;
    if (size != 2) {
        return WRONG_LENGTH;
    }
    put(asked, 2);
    switch (half_at(asked)) {
    case UDS_VERSION:
        put_version();
        return 0;
    case UDS_STATE:
        put_state();
        return 0;
    case UDS_CRASH:
        record_load(&record);
        for (int k = 0; k < PORT_CRASH; k++) {
            put_number(record.crash[k], 4);
        }
        return 0;
    case UDS_SLOTS:
        for (int k = 0; k < PORT_SLOTS; k++) {
            put_number(port->slots[k], 4);
        }
        return 0;
    default:
        return OUT_OF_RANGE;
    }
}

static uint8_t prove(const uint8_t *asked, size_t size) {
    uint8_t message[sizeof purpose + PORT_BOARD + CHALLENGE];
    if (size != 1 + ALGORITHM + 2 + SIGNATURE + 4 || half_at(asked + 1 + ALGORITHM) != SIGNATURE) {
        return WRONG_LENGTH;
    }
    if (!uds.asked) {
        return WRONG_ORDER;
    }
    uds.asked = false; /* a challenge is good for one attempt */
    memcpy(message, purpose, sizeof purpose);
    memcpy(message + sizeof purpose, port->board, PORT_BOARD);
    memcpy(message + sizeof purpose + PORT_BOARD, uds.challenge, CHALLENGE);
    if (!signature_fits(asked + 1 + ALGORITHM + 2, port->access_key, message, sizeof message)) {
        return NOT_OWNER;
    }
    uds.authenticated = true;
    put_number(AUTHENTICATED, 1);
    put(algorithm, ALGORITHM);
    put_number(0, 2);
    return 0;
}

static uint8_t authenticate(const uint8_t *asked, size_t size) {
    const uint8_t step = size ? asked[0] & SUBFUNCTION : 0xFF;
    if (size == 0) {
        return WRONG_LENGTH;
    }
    if (uds.session != PROGRAMMING_SESSION) {
        return NOT_IN_SESSION;
    }
    put_number(step, 1);
    switch (step) {
    case DEAUTHENTICATE:
        leave(PROGRAMMING_SESSION);
        put_number(DEAUTHENTICATED, 1);
        return 0;
    case ASK:
        if (size != 2 + ALGORITHM) {
            return WRONG_LENGTH;
        }
        if (memcmp(asked + 2, algorithm, ALGORITHM) != 0) {
            return OUT_OF_RANGE;
        }
        uds_port_random(uds.challenge, CHALLENGE);
        uds.asked = true;
        put_number(0, 1);
        put(algorithm, ALGORITHM);
        put_number(CHALLENGE, 2);
        put(uds.challenge, CHALLENGE);
        put_number(0, 2);
        return 0;
    case PROVE:
        pending(0x29);
        return prove(asked, size);
    case CONFIGURATION:
        put_number(ASYMMETRIC, 1);
        return 0;
    default:
        return NO_SUBFUNCTION;
    }
}

static uint8_t of_update(update_result result) {
    static const uint8_t codes[] = {0, NOT_NOW, OUT_OF_RANGE, WRONG_ORDER, FLASH_FAILED};
    return codes[result];
}

static uint8_t download(const uint8_t *asked, size_t size) {
    const uint8_t no = forbidden();
    if (size != 10) {
        return WRONG_LENGTH;
    }
    if (no) {
        return no;
    }
    if (asked[0] != 0x00 || asked[1] != 0x44) {
        return OUT_OF_RANGE; /* neither compressed nor encrypted; offset and size take four bytes each */
    }
    pending(0x34);
    const uint8_t failed = of_update(update_start(uds.running, word_at(asked + 2), word_at(asked + 6), &uds.ticket));
    uds.loading = !failed;
    uds.blocks = 0;
    put_number(0x20, 1);
    put_number(BLOCK + 2, 2);
    return failed;
}

static uint8_t transfer(const uint8_t *asked, size_t size) {
    const uint8_t no = forbidden();
    if (size < 2 || size > BLOCK + 1) {
        return WRONG_LENGTH;
    }
    if (no) {
        return no;
    }
    if (!uds.loading) {
        return WRONG_ORDER;
    }
    put_number(asked[0], 1);
    if (uds.blocks > 0 && asked[0] == (uint8_t)uds.blocks) {
        return 0; /* the answer was lost: it is written already */
    }
    if (asked[0] != (uint8_t)(uds.blocks + 1)) {
        return WRONG_BLOCK;
    }
    if (update_erases(size - 1)) {
        pending(0x36);
    }
    const update_result result = update_write(uds.ticket, asked + 1, size - 1);
    uds.loading = result == UPDATE_GOOD || result == UPDATE_OUT_OF_RANGE;
    uds.blocks += result == UPDATE_GOOD;
    return of_update(result);
}

static uint8_t end(size_t size) {
    const uint8_t no = forbidden();
    if (size != 0) {
        return WRONG_LENGTH;
    }
    if (no) {
        return no;
    }
    return uds.loading ? of_update(update_end(uds.ticket)) : WRONG_ORDER;
}

static uint32_t sum_of_sector(uint32_t address) {
    uint32_t crc = 0xFFFFFFFFu;
    uint8_t piece[64];
    for (uint32_t at = 0; at < port->sector_size; at += sizeof piece) {
        port_read(address + at, piece, sizeof piece);
        for (size_t k = 0; k < sizeof piece; k++) {
            crc ^= piece[k];
            for (int bit = 0; bit < 8; bit++) {
                crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
            }
        }
    }
    return ~crc;
}

static uint8_t sums(const uint8_t *asked, size_t size) {
    const uint32_t slot = boot_free_slot(uds.running);
    if (size != 4) {
        return WRONG_LENGTH;
    }
    const uint32_t first = half_at(asked), count = half_at(asked + 2), all = port->slot_size / port->sector_size;
    if (count > SUMS_LARGEST || first > all || count > all - first) {
        return OUT_OF_RANGE;
    }
    if (slot == NO_SLOT) {
        return NOT_NOW;
    }
    pending(0x31);
    for (uint32_t k = 0; k < count; k++) {
        put_number(sum_of_sector(port->slots[slot] + (first + k) * port->sector_size), 4);
    }
    return 0;
}

static uint8_t routine(const uint8_t *asked, size_t size) {
    const uint8_t no = forbidden();
    if (size < 3) {
        return WRONG_LENGTH;
    }
    if (asked[0] != 1) {
        return NO_SUBFUNCTION;
    }
    if (no) {
        return no;
    }
    put(asked, 3);
    switch (half_at(asked + 1)) {
    case UDS_SUMS:
        return sums(asked + 3, size - 3);
    case UDS_CHECK:
        if (size != 3) {
            return WRONG_LENGTH;
        }
        if (boot_free_slot(uds.running) == NO_SLOT) {
            return NOT_NOW;
        }
        pending(0x31);
        put_number(boot_arm(boot_free_slot(uds.running)), 1);
        return 0;
    default:
        return OUT_OF_RANGE;
    }
}

static uint8_t present(const uint8_t *asked, size_t size) {
    if (size != 1) {
        return WRONG_LENGTH;
    }
    put_number(0, 1);
    return asked[0] & SUBFUNCTION ? NO_SUBFUNCTION : 0;
}

/* calls are written out, so that the deepest stack can be read from the program */
static uint8_t dispatch(uint8_t service, const uint8_t *asked, size_t size) {
    switch (service) {
    case 0x10:
        return session(asked, size);
    case 0x11:
        return restart(asked, size);
    case 0x22:
        return read_data(asked, size);
    case 0x29:
        return authenticate(asked, size);
    case 0x31:
        return routine(asked, size);
    case 0x34:
        return download(asked, size);
    case 0x36:
        return transfer(asked, size);
    case 0x37:
        return end(size);
    case 0x3E:
        return present(asked, size);
    default:
        return NO_SERVICE;
    }
}

/* services whose first byte can say that a positive answer is not wanted */
static bool may_be_quiet(uint8_t service) {
    return service == 0x10 || service == 0x11 || service == 0x29 || service == 0x31 || service == 0x3E;
}

static void serve(const uint8_t *asked, size_t size) {
    uds.answer[0] = asked[0] | POSITIVE;
    uds.size = 1;
    const bool quiet = may_be_quiet(asked[0]) && size > 1 && (asked[1] & QUIET);
    const uint8_t code = dispatch(asked[0], asked + 1, size - 1);
    if (code) {
        const uint8_t answer[3] = {NEGATIVE, asked[0], code};
        isotp_send(answer, sizeof answer, uds.now_ms);
    } else if (!quiet) {
        isotp_send(uds.answer, uds.size, uds.now_ms);
    }
}

void uds_frame(const uint8_t *data, size_t size, uint32_t now_ms) {
    const uint8_t *message;
    uds.now_ms = uds.since_ms = now_ms;
    const size_t length = isotp_receive(data, size, now_ms, &message);
    if (length) {
        serve(message, length);
    }
}

void uds_poll(uint32_t now_ms) {
    isotp_poll(now_ms);
    if (uds.session != DEFAULT_SESSION && now_ms - uds.since_ms > SESSION_MS) {
        leave(DEFAULT_SESSION);
    }
    if (uds.reset) { /* its answer went out in one frame */
        uds.reset = false;
        uds_port_reset();
    }
}

bool uds_is_in_use(void) {
    return uds.session != DEFAULT_SESSION;
}
