"""Lints CAN profiles: the DBC, what the profile makes of it, and what a controller would miss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

from bms.racks.findings import ERROR, WARNING, Finding, of_error
from hal.codec import bus_time, can_profile
from hal.codec.can_profile import CanProfile
from hal.codec.can_profile_file import FIXED, Channel
from hal.codec.can_protection import places_of
from hal.codec.dbc import Message, Signal
from hal.codec.frames import Codec, Row
from hal.errors import ConfigError, nearest, noting

MOST_LOAD = 0.7
"""Share of the bus above which a message that comes late makes the next ones late."""

SHOWN = 4  # signals that a finding names

NEEDS: dict[str, tuple[tuple[str, str], ...]] = {
    "contactors": (("measurement", "contactors"), ("command", "contactors")),
    "precharge": (("measurement", "bus_v"),),
    "insulation": (("measurement", "insulation_ohm"),),
    "coolant_flow": (("measurement", "coolant_flow_lpm"),),
    "cooling": (("command", "cooling_degc"),),
    "gas": (("measurement", "gas_alarm"),),
    "balancing": (("command", "balance"),),
    "bleed_feedback": (("measurement", "bleeding"),),
    "shuttle": (("command", "shuttle"),),
}
"""Capability, and the channels that it stands on."""

MISSED = {
    "pack_v": "the sum of the cells is compared with nothing",
    "interlock_closed": "it counts as open, and the contactors never close",
}
"""Channels that are none of a capability, and what a controller does without them."""


def lint(name: str) -> tuple[str, list[Finding]]:
    """What the profile is, and all findings about it and about what it is served as. Raises `ConfigError`."""
    found: list[Finding] = []
    about = ""
    for fd, serving in can_profile.variants(name):
        flaws: list[ConfigError] = []
        lints = _Lints(can_profile.load(name, fd=fd, serving=serving, flaws=flaws), serving)
        told: list[Finding] = []
        for check in lints.checks():
            with noting(flaws):
                told += check()
        found += [*map(of_error, flaws), *told]
        about = about or lints.about()
    return about, list(dict.fromkeys(found))


class _Lints:
    """The lints of one profile that could be read."""

    def __init__(self, profile: CanProfile, serving: bool) -> None:
        self.profile, self.serving = profile, serving
        self.by_name: dict[str, list[tuple[Message, Signal]]] = {}
        for message in profile.database.messages:
            for signal in message.signals:
                for key in (signal.name, f"{message.name}.{signal.name}"):
                    self.by_name.setdefault(key, []).append((message, signal))

    def checks(self) -> tuple[Callable[[], Iterator[Finding]], ...]:
        """All lints; what a controller needs is no matter of a rack that is served."""
        here = (self.signals_exist, self.protection, self.unused, self.load)
        return here if self.serving else (*here, self.capabilities, self.missed)

    def about(self) -> str:
        """What the profile is, in one line."""
        info, n_messages = self.profile.info, len(self.profile.database.messages)
        what = f"{info.n_cells} cells, {info.n_sensors} sensors, {n_messages} messages"
        return f"{self.profile.source}: {what}, {self._load():.0%} of {self.profile.bitrate} bit/s"

    def _load(self) -> float:
        profile = self.profile
        rows: list[Row] = []
        for messages in (profile.measurement_messages(derived=self.serving), self._orders()):
            rows += Codec(profile.database, messages).rows
        timed = [row for row in rows if row.cycle_s > 0]
        return bus_time.load(timed, profile.bitrate, profile.data_bitrate if profile.fd else None)

    def _orders(self) -> tuple[Message, ...]:
        """The messages of a command, () where they are wrong, which is told elsewhere."""
        with noting([]):
            return self.profile.command_messages()
        return ()

    def _named(self) -> Iterator[tuple[str, str]]:
        """(where, signal) of all that the profile names."""
        profile = self.profile
        for table, channels in (
            ("measurement", profile.measurement), ("derived", profile.derived), ("command", profile.command)
        ):  # fmt: skip
            for channel in channels.values():
                for signal in (*channel.signals, *channel.valid):
                    yield f"[{table}] {channel.name}", signal
        for key, signal in profile.identity.items():
            yield f"[identity] {key}", signal

    def signals_exist(self) -> Iterator[Finding]:
        """Every signal that is named is in the DBC, once."""
        told = set()
        for where, signal in self._named():
            places = self.by_name.get(signal, [])
            if len(places) == 1 or where in told:
                continue
            told.add(where)
            if places:
                names = " or ".join(f"{message.name}.{signal}" for message, _ in places)
                yield self._finding(ERROR, where, signal, f"{len(places)} messages have this signal", f"write {names}")
            else:
                plain = [key for key in self.by_name if "." not in key][:2000]
                yield self._finding(
                    ERROR, where, signal, f"the DBC has no such signal{nearest(signal, plain)}", "name one that it has"
                )

    def protection(self) -> Iterator[Finding]:
        """Checksum and counter are where they can be, and somewhere."""
        profile, sent = self.profile, {message.name for message in self._sent()}
        flaws: list[ConfigError] = []
        for guard in profile.protection:
            for name in filter(None, (guard.crc, guard.counter)):
                if name not in self.by_name:
                    yield self._finding(
                        ERROR, "[can.protection]", name, "no message has this signal", "name one, or take it out"
                    )
        for message in profile.database.messages:
            with noting(flaws):
                at = places_of(message, profile.protection, profile.database.source)
                if at is not None and message.multiplexer is not None and message.name in sent:
                    yield self._finding(
                        ERROR, f"message {message.name}", "", "has pages and a CRC or counter, and cannot be sent",
                        "leave one of them out",
                    )  # fmt: skip
        yield from map(of_error, flaws)

    def _sent(self) -> tuple[Message, ...]:
        profile = self.profile
        return profile.measurement_messages(derived=True) if self.serving else self._orders()

    def unused(self) -> Iterator[Finding]:
        """Signals that nothing needs, message by message."""
        profile = self.profile
        used = {*profile.fixed, *(signal for _, signal in self._named())}
        used |= {name for guard in profile.protection for name in (guard.crc, guard.counter)}
        used |= {signal for channel in profile.replaced for signal in (*channel.signals, *channel.valid)}
        matched = set()
        sent = {message.name for message in self._sent()}
        for message in profile.database.messages:
            idle = []
            for signal in message.signals:
                names = (signal.name, f"{message.name}.{signal.name}")
                if signal.multiplexer or used.intersection(names):
                    continue
                patterns = {p for p in profile.unused if any(fnmatchcase(name, p) for name in names)}
                matched |= patterns
                if not patterns:
                    idle.append(signal.name)
            if idle:
                what = "are sent as 0" if message.name in sent else "are not used"
                remedy = f"name them in a channel or in [{FIXED}]" if message.name in sent else (
                    'name them in a channel, or in [can] unused = ["NAME*", ...]'
                )  # fmt: skip
                yield self._finding(WARNING, f"message {message.name}", shown(idle), what, remedy)
        for pattern in profile.unused:
            if pattern not in matched:
                yield self._finding(WARNING, "[can] unused", pattern, "fits no signal that is unused", "take it out")

    def load(self) -> Iterator[Finding]:
        """The bus carries all messages in their cycles, and some more."""
        load = self._load()
        if load > MOST_LOAD:
            yield self._finding(
                ERROR if load > 1.0 else WARNING, "[can] bitrate", str(self.profile.bitrate),
                f"the messages take {load:.0%} of the bus, more than {MOST_LOAD:.0%}",
                "raise it, send less often, or use CAN FD",
            )  # fmt: skip

    def capabilities(self) -> Iterator[Finding]:
        """A capability has its channels, and channels that only a capability makes useful have theirs."""
        profile = self.profile
        tables = {"measurement": profile.measurement, "command": profile.command}
        for capability, channels in NEEDS.items():
            has = getattr(profile.info.capabilities, capability)
            for table, name in channels:
                if has and name not in tables[table]:
                    yield self._finding(
                        ERROR, f"[capabilities] {capability}", "true", f"there is no [{table}] {name}",
                        "add it, or write false",
                    )  # fmt: skip
                elif not has and name in tables[table] and (name != "bus_v" and not _constant(tables[table][name])):
                    yield self._finding(
                        WARNING, f"[{table}] {name}", "", f"not used, for the rack has no {capability}",
                        f"write [capabilities] {capability} = true, or take it out",
                    )  # fmt: skip

    def missed(self) -> Iterator[Finding]:
        """Channels that every rack should have."""
        for name, why in MISSED.items():
            if name not in self.profile.measurement:
                severity = ERROR if name == "interlock_closed" else WARNING
                yield self._finding(
                    severity, f"[measurement] {name}", "", f"missing: {why}",
                    "name its signal, or write { constant = 1 } where the rack has none"
                    if name == "interlock_closed" else "name its signal",
                )  # fmt: skip

    def _finding(self, severity: str, key: str, value: str, text: str, remedy: str) -> Finding:
        return Finding(severity, self.profile.source, key, value, text, remedy)


def _constant(channel: Channel) -> bool:
    return channel.constant is not None


def shown(names: Iterable[str]) -> str:
    """Names of signals for people, the first few of them."""
    every = list(names)
    return ", ".join(every[:SHOWN]) + (f" and {len(every) - SHOWN} more" if len(every) > SHOWN else "")
