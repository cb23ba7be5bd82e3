/* The controller on a processor: its records, its step with a budget of time, and what happens where that is exceeded. */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board.h" /* `control_millisecond` is what its timer calls */
#include "rackbms_config.h"

/* the answer to a measurement; the command's record follows it on the link */
typedef struct {
    int32_t status;  /* of the step: RACKBMS_STATUS_... */
    uint32_t flags;  /* CONTROL_... */
    uint32_t ticks;  /* that the step took, as `board_timer_hz` counts them */
} control_answer;

enum { CONTROL_OVERRUN = 1 }; /* a step took longer than its budget: the outputs are safe until the next start */

/* fresh memory: what is believed of each cell's SoC, and how sure that is */
void control_start(const float *soc, const float *soc_std);

/* changes the measurement by `runs`: bytes to skip, number of bytes, the bytes; `whole`: from zeros on. False where the
 * runs are damaged, or where the measurement has another CRC than `crc` afterwards. */
bool control_measure(const uint8_t *runs, size_t size, bool whole, uint32_t crc);

/* one step, within `budget_ms`; the command is carried out */
control_answer control_step(int32_t request, float dt_s, uint32_t budget_ms);

/* runs from the timer: a step is due every period, until `control_hold` */
void control_run(void);
void control_hold(void);
extern volatile bool control_due;

/* control steps since the start */
uint32_t control_steps(void);

/* a record by its number, with its size; NULL for one that is not there */
enum { CONTROL_CONFIG = 0, CONTROL_STATE = 1, CONTROL_MEASUREMENT = 2, CONTROL_COMMAND = 3 };
uint8_t *control_record(uint32_t which, uint32_t *size);
/* milliseconds, as the timer counts them */
uint32_t control_now_ms(void);

uint8_t *control_measurement(void); /* to be filled between steps */
const uint8_t *control_command(void);
const uint8_t *control_state(void);

#endif
