/* What remains of the boot loader in a program that it has started: the program can be replaced while it runs, and says
 * itself when it has proved to be good. A program that is alone on its board has nothing of it. */
#ifndef RESIDENT_H
#define RESIDENT_H

#include "control.h"

#ifdef BOARD_SLOT

void resident_start(void);

/* to be called often; it may end in a new start */
void resident_poll(void);

/* a step of `dt_s` was made */
void resident_step(const control_answer *answer, float dt_s);

#else

static inline void resident_start(void) {
}

static inline void resident_poll(void) {
}

static inline void resident_step(const control_answer *answer, float dt_s) {
    (void)answer;
    (void)dt_s;
}

#endif

#endif
