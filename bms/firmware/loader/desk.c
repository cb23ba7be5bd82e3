/* The desk: see desk.h. */
#include "desk.h"

#include <string.h>

#include "cortexm.h"
#include "isotp.h"
#include "uds.h"

enum { SENT_MS = 20 }; /* after so long, what was given to the CAN port has gone */

static bool restarting;
static uint32_t asked_ms;

void desk_start(uint32_t running, const image_facts *facts) {
    restarting = false;
    uds_start(running, facts);
}

bool desk_frame(const slcan_frame *frame, uint32_t now_ms) {
    if (frame->identifier != DESK_REQUEST || frame->remote) {
        return false;
    }
    if (!restarting) {
        uds_frame(frame->data, frame->length, now_ms);
    }
    return true;
}

void desk_poll(uint32_t now_ms) {
    const bool before = restarting;
    uds_poll(now_ms);
    if (restarting && !before) {
        asked_ms = now_ms;
    } else if (restarting && now_ms - asked_ms >= SENT_MS) {
        processor_restart();
    }
}

bool isotp_port_send(const uint8_t bytes[ISOTP_FRAME]) {
    slcan_frame frame = {DESK_RESPONSE, false, ISOTP_FRAME, {0}};
    memcpy(frame.data, bytes, ISOTP_FRAME);
    return slcan_send(&frame);
}

void uds_port_reset(void) {
    restarting = true;
}
