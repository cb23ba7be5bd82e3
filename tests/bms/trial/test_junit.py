"""JUnit XML that a build server can read."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from bms.trial.junit import document
from bms.trial.outcome import Outcome


def test_it_parses_and_says_what_it_should(passed: Outcome, failed: Outcome, gap: Outcome) -> None:
    other = replace(passed, id="other", source="b.toml")
    root = ET.fromstring(document([passed, failed, gap, other], {"engine": "jit"}))
    mine, b = root.findall("testsuite")
    assert (mine.get("name"), mine.get("tests"), mine.get("failures"), mine.get("skipped")) == ("mine", "3", "1", "1")
    assert (b.get("tests"), b.get("failures")) == ("1", "0")
    assert "simulation" in mine.find("properties/property").get("value")
    assert mine.find("properties/property[@name='engine']").get("value") == "jit"
    first, second, third = mine.findall("testcase")
    properties = {p.get("name"): p.get("value") for p in first.findall("properties/property")}
    assert properties["rack"].startswith("sim:lfp_280")
    assert properties["seed"] == "3"
    assert len(properties["configuration"]) == 16
    assert properties["clause"] == "IEC 0 & <1>"
    assert first.find("failure") is None
    assert "interlock_open.fatal" in first.find("system-out").text
    assert "500 ms allowed" in second.find("failure").text
    assert "too much is asked" in third.find("skipped").get("message")


def test_characters_that_xml_cannot_write_are_left_out(failed: Outcome) -> None:
    root = ET.fromstring(document([replace(failed, failures=["a\x00b\x1b[1m < & >"])], {}))
    assert root.find(".//failure").text == "ab[1m < & >"
