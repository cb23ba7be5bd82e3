/* The node: see node.h. */
#include "node.h"

#include "board.h"
#include "control.h"

static bool ready; /* everything has come once, of a rack that fits */
static int32_t asked = RACKBMS_REQUEST_CONNECT;
static uint32_t unfit, longest_ticks, opened;
static control_answer last;
static double stepped_s; /* when the last step was made */

/* time since `node_start`, as `board_timer_hz` counts it, and the timer when it was asked last */
static uint64_t passed;
static uint32_t timer;

/* to be called at least once a minute */
static double now_s(void) {
    const uint32_t ticks = board_timer_ticks();
    passed += ticks - timer;
    timer = ticks;
    return (double)passed / board_timer_hz;
}

void node_start(void) {
    ready = false;
    unfit = longest_ticks = 0;
    opened = slcan_count().opened;
    last = (control_answer){0, 0, 0};
    passed = 0;
    timer = board_timer_ticks();
    can_start();
    (void)control_measure(can_blank, can_blank_size, true, 0); /* made here, so that its CRC says nothing */
}

void node_ask(int32_t request) {
    asked = request;
}

__attribute__((weak)) void node_other_frame(const slcan_frame *frame) {
    (void)frame; /* nobody wants it */
}

bool node_listen(void) {
    slcan_frame frame;
    const double at_s = now_s();
    if (!slcan_poll(&frame)) {
        return false;
    }
    if (opened != slcan_count().opened) {
        opened = slcan_count().opened;
        can_forget_counters();
    }
    if (frame.remote || can_accept(frame.identifier, frame.data, frame.length, at_s) == CAN_UNKNOWN) {
        node_other_frame(&frame);
    }
    return true;
}

static void send(void) {
    if (!can_command(control_command())) {
        unfit++;
        return;
    }
    for (uint32_t k = 0; k < RACKBMS_CAN_OUT_ROWS; k++) {
        slcan_frame frame = {can_out_rows[k].key, false, can_out_rows[k].length, {0}};
        for (uint32_t j = 0; j < frame.length; j++) {
            frame.data[j] = can_frame(k)[j];
        }
        (void)slcan_send(&frame); /* it is counted */
    }
}

void node_step(void) {
    if (!ready && (can_missing() || !can_rack_fits())) {
        return;
    }
    const double at_s = now_s(), dt_s = ready ? at_s - stepped_s : RACKBMS_CONFIG_PERIOD_US * 1e-6;
    ready = true;
    stepped_s = at_s;
    can_measure(control_measurement(), at_s);
    last = control_step(asked, (float)dt_s, RACKBMS_CONFIG_PERIOD_US / 1000u);
    longest_ticks = last.ticks > longest_ticks ? last.ticks : longest_ticks;
    send();
}

node_status node_look(bool measured) {
    const uint32_t missing = can_missing();
    uint32_t state = ready ? NODE_RUNNING : missing ? NODE_WAITING : can_rack_fits() ? NODE_WAITING : NODE_OTHER_RACK;
    if (measured) {
        state = NODE_OFF;
    }
    return (node_status){
        state, asked, missing, control_steps(), last.ticks, longest_ticks, last.flags, unfit, board_can_lost(),
        slcan_count(), *can_count(),
    };
}
