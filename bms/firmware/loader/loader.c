/* The boot loader: chooses the image that runs, waits a while for whoever wants to bring another one, and starts it.
 *
 * While it runs, nothing decides: the outputs are safe from the start on.
 */
#include "board.h"
#include "boot.h"
#include "cortexm.h"
#include "desk.h"
#include "smp.h"
#include "uds.h"

#ifndef LISTEN_AFTER_CRASH_MS
#define LISTEN_AFTER_CRASH_MS 10000u /* for a flasher that tries again and again to come in between two crashes */
#endif
enum {
    LISTEN_MS = 200,
    LISTEN_AFTER_VISIT_MS = 2000,
    WATCHDOG_MS = 20000, /* goes on in the program, which has so long to feed it */
};

static volatile uint32_t now_ms;

void control_millisecond(uint32_t passed_ms) {
    now_ms += passed_ms;
}

uint32_t program_steps(void) {
    return 0;
}

bool uds_port_contactors_open(void) {
    return true; /* it has opened them, and closes none */
}

void smp_port_send(const void *data, size_t size) {
    board_send(data, size);
}

/* true where a flasher has asked something */
static bool listen(void) {
    slcan_frame frame;
    uint8_t byte;
    bool asked = false;
    while (slcan_poll(&frame)) {
        asked |= desk_frame(&frame, now_ms);
    }
    while (board_receive(&byte)) {
        smp_byte(byte);
    }
    desk_poll(now_ms);
    channel_is_open(slcan_is_open());
    return asked;
}

static bool is_later(uint32_t time_ms, uint32_t than_ms) {
    return (int32_t)(time_ms - than_ms) > 0;
}

static uint32_t later(uint32_t one_ms, uint32_t other_ms) {
    return is_later(one_ms, other_ms) ? one_ms : other_ms;
}

int main(void) {
    const volatile bool never = false;
    board_init();
    board_watchdog_start(WATCHDOG_MS);
    board_timer_start();
    slcan_start();
    if (channel_was_open()) {
        slcan_resume();
    }
    const bool crashed = crash_is_new();
    const boot_choice choice = boot_choose();
    desk_start(choice.slot, &choice.facts);
    smp_start(choice.slot);
    uint32_t end_ms = now_ms + (crashed ? LISTEN_AFTER_CRASH_MS : LISTEN_MS);
    const uint32_t patience_ms = end_ms + LISTEN_AFTER_VISIT_MS; /* with whoever only asks */
    while (choice.slot == NO_SLOT || is_later(end_ms, now_ms)) {
        board_watchdog_feed();
        if (listen() && is_later(patience_ms, now_ms)) {
            end_ms = later(end_ms, now_ms + LISTEN_MS); /* to be answered whole */
        }
        if (uds_is_in_use() || smp_is_in_use()) {
            end_ms = later(end_ms, now_ms + LISTEN_AFTER_VISIT_MS);
        }
        board_wait(&never);
    }
    processor_enter((const uint32_t *)(uintptr_t)choice.facts.start);
}
