/* The boot loader in a program: see resident.h.
 *
 * What it takes for proof: the controller has left its self-test behind, and for HEALTHY_S it has made steps in time, on
 * measurements that were new and usable, without a fatal fault.
 */
#include "resident.h"

#include "boot.h"
#include "cortexm.h"
#include "desk.h"
#include "node.h"
#include "uds.h"

#ifndef HEALTHY_S
#define HEALTHY_S 10.0f
#endif
#define FRESH_S 1.0f /* a measurement may be so old */

extern uint32_t link_flash[]; /* the slot of this program */

static uint32_t slot = NO_SLOT;
static bool confirmed, self_tested;
static float healthy_s, old_s; /* for how long: all is well; the measurement is the same */
static uint32_t sequence;

static const rackbms_measurement_head *measured(void) {
    return (const rackbms_measurement_head *)(const void *)control_measurement();
}

static const rackbms_command_head *decided(void) {
    return (const rackbms_command_head *)(const void *)control_command();
}

void resident_start(void) {
    image_facts facts = {0};
    for (uint32_t k = 0; k < PORT_SLOTS; k++) {
        if (port->slots[k] == (uint32_t)(uintptr_t)link_flash && image_check(k, 0, &facts) == IMAGE_GOOD) {
            slot = k;
        }
    }
    desk_start(slot, &facts);
    if (channel_was_open()) {
        slcan_resume();
    }
}

void node_other_frame(const slcan_frame *frame) {
    (void)desk_frame(frame, control_now_ms()); /* what is for nobody else is for nobody */
}

void resident_poll(void) {
    channel_is_open(slcan_is_open());
    desk_poll(control_now_ms());
}

/* neither asked to close, nor seen to be closed when they were seen last */
bool uds_port_contactors_open(void) {
    return decided()->contactors == 0 && measured()->contactors == 0;
}

static bool has_tested_itself(void) {
    switch (decided()->state) {
    case RACKBMS_RACK_STATE_INIT:
    case RACKBMS_RACK_STATE_SELF_TEST:
    case RACKBMS_RACK_STATE_FAULT:
        return false;
    default:
        return true;
    }
}

static bool is_healthy(const control_answer *answer) {
    return answer->status == 0 && answer->flags == 0 && decided()->severity < RACKBMS_SEVERITY_FATAL &&
           old_s < FRESH_S;
}

void resident_step(const control_answer *answer, float dt_s) {
    old_s = measured()->sequence == sequence ? old_s + dt_s : 0;
    sequence = measured()->sequence;
    self_tested |= has_tested_itself();
    healthy_s = self_tested && is_healthy(answer) ? healthy_s + dt_s : 0;
    if (!confirmed && healthy_s >= HEALTHY_S) {
        confirmed = boot_confirm(slot, BOOT_SELF_TEST_PASSED | BOOT_RACK_HEALTHY);
        healthy_s = 0; /* where the flash did not take it: again, but not at once */
    }
}
