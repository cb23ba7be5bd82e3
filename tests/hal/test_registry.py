import sys
import types
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal import registry
from hal.contract import Rack
from hal.errors import ConfigError

WORD = st.text(st.characters(categories=("L", "N"), include_characters="_-./ "), min_size=1, max_size=12)


class Recorder:
    """A backend that keeps what it was given."""

    def __init__(self, address: str, **given: Any) -> None:
        self.address = address
        self.given = given


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("recorder_backend")
    module.Recorder = Recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recorder_backend", module)
    monkeypatch.setitem(registry.SCHEMES, "rec", "recorder_backend:Recorder")
    return module


@pytest.mark.parametrize(
    ("url", "scheme", "address", "query"),
    [
        ("sim:lfp_280", "sim", "lfp_280", {}),
        ("sim:lfp_280?", "sim", "lfp_280", {}),
        ("sim:lfp_280?n_series=4&seed=1", "sim", "lfp_280", {"n_series": "4", "seed": "1"}),
        ("can:vcan0?bitrate=500000", "can", "vcan0", {"bitrate": "500000"}),
        ("modbus://10.0.0.2:502?unit=1", "modbus", "//10.0.0.2:502", {"unit": "1"}),
        ("replay:a b/run?x=%26+c", "replay", "a b/run", {"x": "& c"}),
        ("x:?a=", "x", "", {"a": ""}),
    ],
)
def test_urls_come_apart(url: str, scheme: str, address: str, query: dict[str, str]) -> None:
    parts = registry.parse_url(url)
    assert (parts.scheme, parts.address, dict(parts.query)) == (scheme, address, query)


@given(WORD.filter(lambda s: ":" not in s), WORD, st.dictionaries(WORD, WORD, max_size=4))
def test_what_goes_in_comes_out(scheme: str, address: str, query: dict[str, str]) -> None:
    from urllib.parse import quote_plus

    text = "&".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in query.items())
    parts = registry.parse_url(f"{scheme}:{address}?{text}")
    assert (parts.scheme, parts.address, dict(parts.query)) == (scheme, address, query)


@given(st.text(max_size=30))
def test_any_text_is_a_url_or_one_clear_error(text: str) -> None:
    try:
        parts = registry.parse_url(text)
    except ConfigError as error:
        assert text in str(error)
    else:
        assert text.startswith(f"{parts.scheme}:{parts.address}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "expected scheme:address"),
        ("lfp_280", "expected scheme:address"),
        (":x", "expected scheme:address"),
        ("sim:x?a", "'a' is not key=value"),
        ("sim:x?=1", "'=1' is not key=value"),
        ("sim:x?a=1&a=2", "the key 'a' is given twice"),
        ("sin:lfp_280", "unknown scheme 'sin' (did you mean 'sim'?)"),
    ],
)
def test_bad_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.open_rack(url)
    assert message in str(caught.value)
    assert f"'{url}'" in str(caught.value)


def test_the_backend_gets_every_part(backend: types.ModuleType) -> None:
    clock, options = object(), {"rack": {"seed": 1}}
    rack: Any = registry.open_rack("rec:here?k=v", clock=clock, options=options)  # type: ignore[arg-type]
    assert rack.address == "here"
    assert rack.given == {"query": {"k": "v"}, "clock": clock, "options": options}
    plain: Any = registry.open_rack("rec:")
    assert plain.given == {"query": {}, "clock": None, "options": {}}


def test_other_distributions_add_schemes_but_cannot_replace_ours(
    backend: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        EntryPoint("mine", "recorder_backend:Recorder", registry.GROUP),
        EntryPoint("sim", "recorder_backend:Recorder", registry.GROUP),
    ]
    installed = metadata.entry_points

    def listed(**wanted: str) -> object:
        return points if wanted == {"group": registry.GROUP} else installed(**wanted)

    monkeypatch.setattr(metadata, "entry_points", listed)
    assert isinstance(registry.open_rack("mine:x"), Recorder)
    assert isinstance(registry.open_rack("sim:nmc_ev?n_series=2"), Rack)
    assert registry.schemes()["sim"] == "hal.backends.simulated:SimulatedRack"


def test_a_missing_extra_names_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SCHEMES, "far", "library_that_is_not_there.inner:Rack")
    with pytest.raises(ConfigError, match="cannot be imported"):
        registry.open_rack("far:x")
    monkeypatch.setitem(registry.EXTRAS, "library_that_is_not_there", "far")
    with pytest.raises(
        ConfigError, match=r"'library_that_is_not_there' is not installed \(pip install 'rackbms\[far\]'\)"
    ):
        registry.open_rack("far:x")


def test_a_class_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SCHEMES, "odd", "hal.errors:Nothing")
    with pytest.raises(ConfigError, match=r"hal.errors has no class Nothing"):
        registry.open_rack("odd:x")


def test_every_scheme_of_ours_can_be_imported() -> None:
    for scheme, target in registry.SCHEMES.items():
        module, _, name = target.partition(":")
        assert hasattr(__import__(module, fromlist=[name]), name), scheme


# --- prefixes ---------------------------------------------------------------------------------------------------------


def test_prefixes_wrap_from_the_inside_out(tmp_path: Any) -> None:
    from hal.backends.chaos import Chaos
    from hal.backends.record import Record

    query = f"n_series=4&chaos.drop=0.5&record.to={tmp_path}/a.bms&duty.kind=constant"
    rack: Any = registry.open_rack(f"record+chaos+sim:lfp_280?{query}")
    assert isinstance(rack, Record)
    assert isinstance(rack._rack, Chaos)
    assert rack.twin.config.n_series == 4
    other: Any = registry.open_rack(f"chaos+record+sim:lfp_280?{query}")
    assert isinstance(other, Chaos)
    assert isinstance(other._rack, Record)
    assert registry.programs(f"record+chaos+sim:lfp_280?{query}") == registry.programs("sim:lfp_280")


def test_keys_and_tables_of_a_prefix_do_not_reach_the_rack(backend: types.ModuleType) -> None:
    rack: Any = registry.open_rack(
        "chaos+rec:here?chaos.seed=3&k=v&a.b=c", options={"chaos": {"wire": {}}, "rack": {"x": 1}}
    )
    assert rack._rack.given == {"query": {"k": "v", "a.b": "c"}, "clock": None, "options": {"rack": {"x": 1}}}
    assert rack.seed == 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("choas+sim:lfp_280", "unknown prefix 'choas+' (did you mean 'chaos'?)"),
        ("chaos+chaos+sim:lfp_280", "the prefix 'chaos+' is given twice"),
        ("chaos+sin:lfp_280", "unknown scheme 'sin' (did you mean 'sim'?)"),
        ("+sim:lfp_280", "unknown prefix '+'"),
        ("sim:lfp_280?chaos.drop=0.1", "'chaos.drop' is a key of 'chaos+': write chaos+sim:lfp_280?chaos.drop=0.1"),
        ("chaos+sim:site?racks=2", "a site of many racks, where one rack is needed"),
    ],
)
def test_prefixes_that_cannot_be_are_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.open_rack(url)
    assert message in str(caught.value)
    assert f"'{url}'" in str(caught.value)


def test_a_site_takes_no_prefix() -> None:
    with pytest.raises(ConfigError, match=r"a prefix wraps one rack, not a site: leave out 'chaos\+'"):
        registry.open_site("chaos+sim:site?racks=2")
