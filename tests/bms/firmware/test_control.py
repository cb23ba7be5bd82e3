"""The firmware's control.c on this computer, with a board and a controller that do what the test says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bms.firmware.baked import baked, config_header, config_source
from bms.firmware.build import rackbms_header

HARNESS = """
#include <stdio.h>
#include "board.h"
#include "control.h"
const uint32_t board_timer_hz = 1000;
static int lamps, step_takes_ms, starts;
static uint32_t now_ms;
void board_outputs(uint8_t contactors) { lamps = contactors; }
void board_timer_start(void) { now_ms = 0; starts++; }
uint32_t board_timer_ticks(void) { return now_ms; }
bool board_receive(uint8_t *byte) { (void)byte; return false; }
void board_send(const void *data, size_t size) { (void)data; (void)size; }
static void pass(int ms) { while (ms--) { now_ms++; control_millisecond(1); } }
void rackbms_init(uint8_t *c, int64_t n, uint8_t *s, int64_t m, float *a, int64_t na, float *b, int64_t nb) {
    (void)c; (void)n; (void)s; (void)m; (void)a; (void)na; (void)b; (void)nb;
}
int32_t rackbms_step(uint8_t *c, int64_t nc, uint8_t *s, int64_t ns, uint8_t *m, int64_t nm, uint8_t *command,
                     int64_t size, int32_t request, float dt_s) {
    (void)c; (void)nc; (void)s; (void)ns; (void)m; (void)nm; (void)size; (void)dt_s;
    rackbms_command_head *head = (rackbms_command_head *)(void *)command;
    head->contactors = 3, head->state = RACKBMS_RACK_STATE_CONNECTED, head->limit_charge_a = 7;
    pass(step_takes_ms);
    return request;
}
static void step(int takes_ms, uint32_t budget_ms) {
    step_takes_ms = takes_ms;
    const control_answer answer = control_step(5, 0.1f, budget_ms);
    const rackbms_command_head *head = (const rackbms_command_head *)(const void *)control_command();
    printf("%d %u %u %d %d %g\\n", (int)answer.status, answer.flags, answer.ticks, lamps, head->state == 3, head->limit_charge_a);
}
static void due(int ms) { pass(ms); printf("due %d lamps %d\\n", control_due, lamps); }
int main(void) {
    static const float soc[RACKBMS_CONFIG_CELLS];
    control_start(soc, soc);
    step(99, 100); /* in lock-step */
    due(1900);
    due(1); /* two seconds after the step began */
    step(99, 100);
    step(100, 100); /* too long */
    step(1, 100);   /* and never again */
    control_start(soc, soc);
    step(1, 100);
    printf("steps %u, %d starts of the timer\\n", control_steps(), starts);
    control_run(); /* by its own timer, every second */
    due(999);
    due(1);
    control_due = false;
    step(10, 1000);
    due(989);
    due(1);
    control_millisecond(2500); /* the emulator had to wait: two periods and a half at once */
    printf("due %d\\n", control_due);
    control_due = false;
    due(499);
    due(1);
    control_hold();
    due(5000);
    return 0;
}
"""

EXPECTED = """\
5 0 99 3 1 7
due 0 lamps 3
due 0 lamps 0
5 0 99 3 1 7
5 1 100 0 0 0
5 1 1 0 0 0
5 0 1 3 1 7
steps 1, 5 starts of the timer
due 0 lamps 3
due 1 lamps 3
5 0 10 3 1 7
due 0 lamps 3
due 1 lamps 3
due 1
due 0 lamps 3
due 1 lamps 3
due 0 lamps 0
"""


def test_outputs_are_safe_when_a_step_is_late_or_nobody_asks(cc: str, repository: Path, tmp_path: Path) -> None:
    found = baked("nmc_ev", 12)
    for name, content in (
        ("rackbms.h", rackbms_header()),
        ("rackbms_config.h", config_header(found)),
        ("rackbms_config.c", config_source(found)),
        ("harness.c", HARNESS),
    ):
        (tmp_path / name).write_text(content)
    board = repository / "bms" / "firmware" / "board"
    sources = [board / "control.c", board / "link.c", tmp_path / "rackbms_config.c", tmp_path / "harness.c"]
    words = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", f"-I{tmp_path}", f"-I{board}"]
    subprocess.run([cc, *words, *sources, "-o", tmp_path / "harness"], check=True)
    done = subprocess.run([tmp_path / "harness"], capture_output=True, text=True, check=True)
    assert done.stdout == EXPECTED
