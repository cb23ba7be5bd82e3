"""The tests of protection run every line and every branch of it, as plain Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FILES = (
    *("diagnosis", "signals", "sources", "plausibility", "plausibility_model", "precharge", "machine", "guard"),
    *("cooling", "runaway", "first_look", "string_sag", "sudden", "missing_current", "current_gain", "thermometer"),
    *("bias_doubt", "current_zero", "empty"),
    "stillness",
    "growing",
)
# thousands of steps or of examples: none of them is needed for a line
LONG = (
    "any_value", "any_mixture", "every_channel", "nothing_raises", "slow_model", "no_row_clears", "kept_to_a_step",
    "flipped_bit", "its_slope", "noise_and_steps", "warms_as_it_should", "common_response_is", "fills_the_budget",
    "success_forgets", "is_tried_no_more", "wrong_gain_is_told", "does_not_become_usual", "change_slowly", "usual_is_the",
    "knee_of_a_curve",
    "drifts_while_nothing", "comes_in_hours", "one_cell_sinks", "colder_coolant", "noise_of_a_hot_sensor",
    "told_by_its_answer", "number_or_unknown", "what_the_description", "no_healthy_rack", "quiet_channel_among",
    "middle_of_a_coarse", "in_turns_are_not", "come_to_rest_are", "how_much_must_be_missing", "third_of_the_time",
    "three_deviations_are_doubted", "stairs_of_a_coarse", "usually_answers", "put_back_wrongly", "off_by_never_adds",
    "length_of_a_step_does", "remembered_for_ten", "drifts_while_all",
)  # fmt: skip


def test_every_line_and_every_branch_of_protection_is_run(repository: Path, tmp_path: Path) -> None:
    found, told = tmp_path / "coverage", tmp_path / "coverage.json"
    env = {**os.environ, "RACKBMS_JIT": "0", "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")}
    include = ",".join(f"bms/core/{name}.py" for name in FILES)
    coverage = [sys.executable, "-m", "coverage"]
    run = [*coverage, "run", "--branch", f"--data-file={found}", f"--include={include}"]
    folder = repository / "tests" / "bms" / "core"
    tests = sorted({str(p) for name in FILES for p in folder.glob(f"test_{name}*.py") if "exhaustive" not in p.name})
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "-k", f"not ({' or '.join(LONG)})"]
    for command in ([*run, *pytest, *tests], [*coverage, "json", f"--data-file={found}", "-q", "-o", str(told)]):
        done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stdout + done.stderr
    files = json.loads(told.read_text())["files"]
    assert sorted(files) == sorted(f"bms/core/{name}.py" for name in FILES)
    missing = {name: (file["missing_lines"], file["missing_branches"]) for name, file in files.items()}
    assert missing == {name: ([], []) for name in files}
    assert all(file["summary"]["num_branches"] for file in files.values())
