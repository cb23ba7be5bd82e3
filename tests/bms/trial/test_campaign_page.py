"""The page of a campaign: whole by itself, well-formed, nothing unescaped, curves where there are times."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from bms.trial.campaign_page import render
from bms.trial.campaign_summary import summarise


def test_the_page_is_whole_by_itself(plan, rows) -> None:
    shorts = plan(campaign={"n": 4, "seed": 7, "description": "a <b> & c"})
    text = render({**summarise(shorts, rows, [], {"engine": "jit"}), "missed": ["passed: 1 < 2"]}, rows)
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text
    assert "a &lt;b&gt; &amp; c" in text
    assert "passed: 1 &lt; 2" in text
    assert "Detected, by ohm" in text
    assert "injection to detection" in text
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) >= 5  # shares, times, three variations
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert "nan" not in picture


def test_a_healthy_campaign_has_no_times(plan) -> None:
    from bms.trial.campaign_sample import run_sample

    healthy = plan({"run": {"duration": "50s"}, "campaign": {"n": 1}})
    rows = [run_sample(healthy, 0)]
    text = render(summarise(healthy, rows, [], {}), rows)
    assert "False alarms" in text
    assert "<h2>Times" not in text


@pytest.mark.parametrize("lead", [-30.0, 0.0, 12.0])
def test_a_curve_of_one_value(plan, rows, lead: float) -> None:
    few = [{**rows[0], "vented_s": 40.0, "detect_s": 40.0 - lead, "lead_venting_s": lead}]
    text = render(summarise(plan(), few, [], {}), few)
    assert 'aria-label="detection to venting"' in text


def test_how_near_sound_racks_came_is_a_table(plan, rows) -> None:
    few = [{**rows[0], "margins": "cell_sag 0.812"}]
    assert "<td>cell_sag</td><td class='number'>0.81</td>" in render(summarise(plan(), few, [], {}), few)
    bare = [{**rows[0], "margins": ""}]
    assert "Nearest to a warning" not in render(summarise(plan(), bare, [], {}), bare)
