/* A controller on this computer: its flash in memory, stricter than one of silicon, and power that can be cut. */
#ifndef HOST_H
#define HOST_H

#include <setjmp.h>

#include "boot.h"
#include "update.h"

typedef struct {
    uint32_t operations; /* erased sectors and written units since the start of the program */
    uint32_t violations; /* what no flash would stand: written twice, not erased, not aligned, outside */
    uint32_t lost;       /* how often power was cut */
} host_counters;

/* a controller that is new: all is erased */
void host_new(const port_facts *facts, uint32_t flash_size);

/* Power is cut in the middle of the operation that comes after `after` others; 0xFFFFFFFF: never. `seed` decides what is left
 * of the sector or unit: nothing happened, all happened, each bit one or the other, or noise. */
void host_cut(uint32_t after, uint32_t seed);

/* what the next start finds of a crash; `words` NULL: nothing */
void host_crash(const uint32_t *words);

uint8_t *host_flash(void);
host_counters host_count(void);

/* a call by a controller with power: false where that was cut */
extern jmp_buf host_power;
#define HOST_POWERED(call)        \
    do {                          \
        if (setjmp(host_power)) { \
            return false;         \
        }                         \
        call;                     \
        return true;              \
    } while (0)

/* each is done by a controller with power; false where power was cut, and nothing is known of the result */
bool host_boot(boot_choice *choice);
bool host_check(uint32_t slot, uint32_t counter, image_verdict *verdict, image_facts *facts);
bool host_update(uint32_t running, const uint8_t *image, uint32_t offset, uint32_t size, update_result *result);
bool host_arm(uint32_t slot, image_verdict *verdict);
bool host_confirm(uint32_t slot, uint32_t evidence, bool *done);

/* the controller on a bus: it has started, and `choice` runs */
bool host_node_start(const boot_choice *choice);
bool host_node_frame(const uint8_t *data, size_t size, uint32_t now_ms);
bool host_node_poll(uint32_t now_ms);
bool host_node_take(uint8_t frame[8]); /* the next frame that it has sent; false where there is none */
void host_node_contactors(bool open);
bool host_node_bytes(const uint8_t *data, size_t size); /* have come over its serial line */
size_t host_node_said(uint8_t *to, size_t room);        /* what it has sent there since it was asked last */
bool host_node_wants_reset(void); /* since it was asked last */

#endif
