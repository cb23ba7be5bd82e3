/* The program: it runs by its own timer, or in step with whoever is at the other end of the link.
 *
 * After the start it runs by itself, with the newest measurement, once there is one: as a node of the rack's bus, or
 * with what MEASURE brings, and from then on with nothing else. START puts it into lock-step: a step is made for each
 * STEP, and time is what the frames say. RUN lets it run by itself again, as after the start.
 */
#include <string.h>

#include "board.h"
#include "control.h"
#include "cortexm.h"
#include "link.h"
#include "node.h"
#include "peek.h"
#include "resident.h"

#define PROTOCOL 2u
#define WATCHDOG_MS 20000u /* longer than any budget of a step: it is for a program that does not come back at all */

/* kinds of frames, and what answers them; an answer has the sequence number of its question */
enum {
    HELLO = 1,   /* nothing -> `identity` */
    START = 2,   /* SoC of each cell, then its deviation, float -> nothing */
    STEP = 3,    /* `question`, then runs of changes of the measurement -> `control_answer`, command */
    RUN = 4,     /* nothing -> nothing; from then on it tells of each step as if MEASURE had an answer */
    MEASURE = 5, /* as STEP, without an answer: the next step sees it */
    NODE = 6,    /* nothing, or a request for the node, 32 bits -> `node_status`, head of the command */
                 /* 7 to 9: peek.h */
    ANSWER = 0x80,
    REFUSED = 0xFF, /* -> one of the reasons below, 32 bits */
};
enum { WRONG_LENGTH = 2, NOT_STARTED = 3, OTHER_MEASUREMENT = 4 };

enum { WHOLE = 1 }; /* of `question.flags`: the runs do not start from the last measurement, but from zeros */

typedef struct {
    int32_t request; /* RACKBMS_REQUEST_... */
    float dt_s;
    uint32_t budget_ms;
    uint32_t flags;
    uint32_t crc; /* of the measurement with the changes */
} question;

/* what both sides must agree on, and where a debugger finds the records */
typedef struct {
    uint32_t protocol, n_cells, n_sensors;
    uint32_t config_size, state_size, measurement_size, command_size;
    uint32_t config_address, state_address;
    uint32_t timer_hz, period_us;
    char target[16];                           /* the processor's name */
    char kernels[16], layouts[16], config[16]; /* hexadecimal */
    crash_record crash;                        /* the last one; its cause is 0 without */
} identity;

static bool started;        /* in lock-step */
static bool measured;       /* a measurement has arrived over the link: the bus counts no more */
static int32_t requested;   /* by the last MEASURE */
static bool answered;       /* there is an answer to the step `last_sequence` */
static uint8_t last_sequence;
static control_answer last_answer;

uint32_t program_steps(void) {
    return control_steps();
}

static void answer(uint8_t kind, uint8_t sequence, const void *head, size_t size) {
    link_send(kind | ANSWER, sequence, head, size, NULL, 0);
}

static void refuse(uint8_t sequence, uint32_t reason) {
    link_send(REFUSED, sequence, &reason, sizeof reason, NULL, 0);
}

static void hello(uint8_t sequence) {
    identity own = {
        PROTOCOL,
        RACKBMS_CONFIG_CELLS,
        RACKBMS_CONFIG_SENSORS,
        RACKBMS_CONFIG_SIZE,
        RACKBMS_CONFIG_STATE_SIZE,
        RACKBMS_CONFIG_MEASUREMENT_SIZE,
        RACKBMS_CONFIG_COMMAND_SIZE,
        (uint32_t)(uintptr_t)rackbms_config,
        (uint32_t)(uintptr_t)control_state(),
        board_timer_hz,
        RACKBMS_CONFIG_PERIOD_US,
        RACKBMS_TARGET,
        {0},
        {0},
        {0},
        crash_last(),
    };
    memcpy(own.kernels, RACKBMS_KERNELS, sizeof own.kernels);
    memcpy(own.layouts, RACKBMS_LAYOUTS, sizeof own.layouts);
    memcpy(own.config, RACKBMS_CONFIG_HASH, sizeof own.config);
    answer(HELLO, sequence, &own, sizeof own);
}

static void start(const link_frame *frame) {
    static float soc[2 * RACKBMS_CONFIG_CELLS];
    if (frame->length != sizeof soc) {
        refuse(frame->sequence, WRONG_LENGTH);
        return;
    }
    control_hold();
    memcpy(soc, frame->content, sizeof soc);
    control_start(soc, soc + RACKBMS_CONFIG_CELLS);
    crash_forget();
    started = true;
    answered = false;
    answer(START, frame->sequence, NULL, 0);
}

/* takes the measurement of a frame; false, with the reason sent, where that cannot be */
static bool take(const link_frame *frame, question *asked) {
    if (frame->length < sizeof *asked) {
        refuse(frame->sequence, WRONG_LENGTH);
        return false;
    }
    memcpy(asked, frame->content, sizeof *asked);
    if (!control_measure(frame->content + sizeof *asked, frame->length - sizeof *asked, asked->flags & WHOLE,
                         asked->crc)) {
        refuse(frame->sequence, OTHER_MEASUREMENT);
        return false;
    }
    measured = true;
    return true;
}

static void send_command(uint8_t kind, uint8_t sequence) {
    link_send(kind | ANSWER, sequence, &last_answer, sizeof last_answer, control_command(),
              RACKBMS_CONFIG_COMMAND_SIZE);
}

/* one step for each number: a question that is repeated, because its answer was lost, gets the same answer again */
static void step(const link_frame *frame) {
    question asked;
    if (!started) {
        refuse(frame->sequence, NOT_STARTED);
        return;
    }
    if (!answered || frame->sequence != last_sequence) {
        if (!take(frame, &asked)) {
            return;
        }
        last_answer = control_step(asked.request, asked.dt_s, asked.budget_ms);
        last_sequence = frame->sequence;
        answered = true;
    }
    send_command(STEP, last_sequence);
}

static void measure(const link_frame *frame) {
    question asked;
    if (take(frame, &asked)) {
        requested = asked.request;
    }
}

/* a step of the program's own timer */
static void tick(void) {
    if (!measured) {
        node_step();
        return;
    }
    last_answer = control_step(requested, RACKBMS_CONFIG_PERIOD_US * 1e-6f, RACKBMS_CONFIG_PERIOD_US / 1000u);
    send_command(MEASURE, (uint8_t)control_steps());
}

static void run(void) {
    static float soc[RACKBMS_CONFIG_CELLS], deviation[RACKBMS_CONFIG_CELLS];
    for (size_t k = 0; k < RACKBMS_CONFIG_CELLS; k++) {
        soc[k] = 0.5f; /* nothing is known: evenly spread over 0..1 */
        deviation[k] = 0.29f;
    }
    if (!started) {
        control_start(soc, deviation);
    }
    started = false;
    measured = false;
    control_run();
    node_start();
}

static void node(const link_frame *frame) {
    int32_t request;
    if (frame->length == sizeof request) {
        memcpy(&request, frame->content, sizeof request);
        node_ask(request);
    } else if (frame->length) {
        refuse(frame->sequence, WRONG_LENGTH);
        return;
    }
    const node_status status = node_look(started || measured);
    link_send(NODE | ANSWER, frame->sequence, &status, sizeof status, control_command(), sizeof(rackbms_command_head));
}

static void look(const link_frame *frame) {
    const peek_answer seen = peek(frame, started);
    if (seen.refusal) {
        refuse(frame->sequence, seen.refusal);
    } else {
        answer(frame->kind, frame->sequence, seen.data, seen.size);
    }
}

static void dispatch(const link_frame *frame) {
    switch (frame->kind) {
    case HELLO:
        hello(frame->sequence);
        break;
    case START:
        start(frame);
        break;
    case STEP:
        step(frame);
        break;
    case RUN:
        run();
        answer(RUN, frame->sequence, NULL, 0);
        break;
    case MEASURE:
        measure(frame);
        break;
    case NODE:
        node(frame);
        break;
    default:
        look(frame);
    }
}

int main(void) {
    link_frame frame;
    board_init();
    board_watchdog_start(WATCHDOG_MS);
    slcan_start();
    resident_start();
    run();
    for (;;) {
        board_watchdog_feed();
        resident_poll();
        if (control_due) {
            control_due = false;
            tick();
        } else if (link_receive(&frame)) {
            dispatch(&frame);
        } else if (!node_listen()) {
            board_wait(&control_due);
        }
    }
}
