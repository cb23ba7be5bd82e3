/* Mail: see mail.h. */
#include "mail.h"

#define MAIL 262144u     /* bytes in each direction; a power of 2 */
#define USED 0x4C49414Du /* memory that nobody has written yet may hold anything else */

/* numbers of bytes count on and wrap; each side writes its own, and no start touches them */
typedef struct {
    uint32_t used; /* USED, written by the other side before the start */
    uint32_t left, taken;
    uint32_t sent, fetched;
    uint32_t reserved[11];
    uint8_t in[MAIL], out[MAIL];
} mailbox;

/* where the linker script has none, there is none */
extern volatile mailbox link_mail __attribute__((weak));

static bool untold;

bool mail_used(void) {
    return &link_mail && link_mail.used == USED;
}

bool mail_receive(uint8_t *byte) {
    const uint32_t taken = link_mail.taken;
    if (taken == link_mail.left) {
        return false;
    }
    *byte = link_mail.in[taken % MAIL];
    link_mail.taken = taken + 1;
    return true;
}

size_t mail_send(const uint8_t *data, size_t size) {
    const uint32_t sent = link_mail.sent, room = MAIL - (sent - link_mail.fetched);
    const size_t count = size < room ? size : room;
    for (size_t k = 0; k < count; k++) {
        link_mail.out[(sent + k) % MAIL] = data[k];
    }
    link_mail.sent = sent + (uint32_t)count;
    untold = true;
    return count;
}

bool mail_to_tell(void) {
    const bool was = untold;
    untold = false;
    return was;
}
