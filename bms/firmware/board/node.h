/* The controller as a node of the rack's bus: what comes there is its measurement, and its commands go out there. */
#ifndef NODE_H
#define NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "can.h"
#include "slcan.h"

enum {
    NODE_WAITING,    /* for messages that have not come yet */
    NODE_OTHER_RACK, /* the rack says that it has another size or layout */
    NODE_RUNNING,
    NODE_OFF, /* somebody measures over the link */
};

/* what the node tells over the link; the head of the last command follows */
typedef struct {
    uint32_t state;   /* NODE_... */
    int32_t request;  /* RACKBMS_REQUEST_... */
    uint32_t missing; /* messages that have not come yet */
    uint32_t steps, ticks, longest_ticks; /* control steps; time of the last one and of the longest */
    uint32_t flags;    /* of the last step: CONTROL_... */
    uint32_t unfit;    /* commands that the frames cannot carry, and that were not sent */
    uint32_t port_lost; /* bytes of the port that were not taken in time */
    slcan_counts lines;
    can_counts frames;
} node_status;

/* forget what has come; what is asked of the controller stays, and so does the channel */
void node_start(void);

/* what the controller is asked for from now on: RACKBMS_REQUEST_..., at first to connect */
void node_ask(int32_t request);

/* takes what has arrived on the bus; true where something has */
bool node_listen(void);

/* one step of the controller, and its command to the bus, where everything that it needs has come once */
void node_step(void);

/* how it is; `measured`: it gets its measurements elsewhere */
node_status node_look(bool measured);

/* A frame that is not of the profile: for whoever wants it, the boot loader's services for example, and defines this
 * function; it is called from the program's loop, between steps. */
void node_other_frame(const slcan_frame *frame);

#endif
