/* The controller: see control.h. */
#include "control.h"

#include <string.h>

#include "board.h"
#include "link.h"
#include "resident.h"

#define RECORD __attribute__((section(".records"), aligned(64))) static uint8_t

#define PERIOD_MS ((RACKBMS_CONFIG_PERIOD_US + 999u) / 1000u)
#define SILENCE_MS 2000u /* in lock-step: so long after the last step, the outputs are made safe */

RECORD state[RACKBMS_CONFIG_STATE_SIZE];
RECORD measurement[RACKBMS_CONFIG_MEASUREMENT_SIZE];
RECORD command[RACKBMS_CONFIG_COMMAND_SIZE];

static uint32_t steps;

/* what the timer's interrupt looks at */
static volatile bool running, stepping, overrun;
static volatile uint32_t step_ms, limit_ms, since_ms; /* in this step, at most; since the last one was due */
static volatile uint32_t now_ms;
volatile bool control_due;

static uint8_t *config(void) {
    return (uint8_t *)(uintptr_t)rackbms_config; /* the functions take what they only read as if they wrote it */
}

void control_start(const float *soc, const float *soc_std) {
    /* the kernels read both and write neither */
    float *first = (float *)(uintptr_t)soc, *second = (float *)(uintptr_t)soc_std;
    const int64_t n = RACKBMS_CONFIG_CELLS;
    overrun = false;
    steps = 0;
    memset(state, 0, sizeof state);
    memset(command, 0, sizeof command);
    rackbms_init(config(), RACKBMS_CONFIG_SIZE, state, sizeof state, first, n, second, n);
}

bool control_measure(const uint8_t *runs, size_t size, bool whole, uint32_t crc) {
    size_t at = 0;
    if (whole) {
        memset(measurement, 0, sizeof measurement);
    }
    while (size >= 2) {
        const size_t skip = runs[0], count = runs[1];
        if (size < 2 + count || at + skip + count > sizeof measurement) {
            return false;
        }
        memcpy(measurement + at + skip, runs + 2, count);
        at += skip + count;
        runs += 2 + count;
        size -= 2 + count;
    }
    return size == 0 && link_crc(0, measurement, sizeof measurement) == crc;
}

/* the command of a controller that is too late: nothing may flow, and all is open */
static void refuse(void) {
    rackbms_command_head *head = (rackbms_command_head *)(void *)command;
    head->contactors = 0;
    head->state = RACKBMS_RACK_STATE_FAULT;
    head->severity = RACKBMS_SEVERITY_FATAL;
    head->limit_discharge_a = head->limit_charge_a = 0;
    head->limit_discharge_w = head->limit_charge_w = 0;
    memset(rackbms_command_balance(command, RACKBMS_CONFIG_CELLS, RACKBMS_CONFIG_SENSORS), 0, RACKBMS_CONFIG_CELLS);
    memset(rackbms_command_shuttle(command, RACKBMS_CONFIG_CELLS, RACKBMS_CONFIG_SENSORS), 0, RACKBMS_CONFIG_CELLS);
}

control_answer control_step(int32_t request, float dt_s, uint32_t budget_ms) {
    control_answer answer = {0, 0, 0};
    if (!running) {
        since_ms = 0;
        board_timer_start(); /* in lock-step, every step sees the timer in the same way */
    }
    const uint32_t before = board_timer_ticks();
    step_ms = 0;
    limit_ms = budget_ms;
    stepping = true;
    answer.status = rackbms_step(config(), RACKBMS_CONFIG_SIZE, state, sizeof state, measurement, sizeof measurement,
                                 command, sizeof command, request, dt_s);
    stepping = false;
    answer.ticks = board_timer_ticks() - before;
    steps++;
    if (overrun) {
        refuse();
        answer.flags |= CONTROL_OVERRUN;
    }
    board_outputs(((const rackbms_command_head *)(const void *)command)->contactors);
    resident_step(&answer, dt_s);
    return answer;
}

void control_millisecond(uint32_t passed_ms) {
    now_ms += passed_ms;
    if (stepping && ++step_ms >= limit_ms) {
        overrun = true;
        board_outputs(0);
    }
    since_ms += passed_ms;
    if (running && since_ms >= PERIOD_MS) {
        since_ms %= PERIOD_MS;
        control_due = true;
    } else if (!running && since_ms >= SILENCE_MS) {
        board_outputs(0); /* nobody asks any more */
    }
}

void control_run(void) {
    since_ms = 0;
    control_due = false;
    running = true;
    board_timer_start();
}

void control_hold(void) {
    running = false;
    control_due = false;
    board_outputs(0);
}

uint32_t control_steps(void) {
    return steps;
}

uint8_t *control_record(uint32_t which, uint32_t *size) {
    switch (which) {
    case CONTROL_CONFIG:
        *size = RACKBMS_CONFIG_SIZE;
        return config();
    case CONTROL_STATE:
        *size = sizeof state;
        return state;
    case CONTROL_MEASUREMENT:
        *size = sizeof measurement;
        return measurement;
    case CONTROL_COMMAND:
        *size = sizeof command;
        return command;
    default:
        *size = 0;
        return NULL;
    }
}

uint32_t control_now_ms(void) {
    return now_ms;
}

uint8_t *control_measurement(void) {
    return measurement;
}

const uint8_t *control_command(void) {
    return command;
}

const uint8_t *control_state(void) {
    return state;
}
