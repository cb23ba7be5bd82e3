"""How long frames take on a CAN bus."""

from __future__ import annotations

from collections.abc import Iterable

from hal.codec.dbc import Message
from hal.codec.frames import Row


def frame_s(message: Message, bitrate: int, data_bitrate: int | None) -> float:
    """Bus time of a frame of `message` with the most stuff bits and the pause after it; `data_bitrate` for CAN FD.

    ISO 11898-1: a classic frame has 44 (29-bit identifier: 64) bits beside its data, 34 (54) of which and the data can
    be stuffed, and 3 of pause. A CAN FD frame switches its rate after 17 (36) bits of arbitration.
    """
    data = 8 * message.length
    if data_bitrate is None:
        plain, stuffed = (64, 54) if message.extended else (44, 34)
        return (plain + data + (stuffed + data - 1) // 4 + 3) / bitrate
    crc = 21 + 6 if message.length > 16 else 17 + 5
    slow = (36 if message.extended else 17) * 1.25 + 12 + 3
    return slow / bitrate + ((data + 9) * 1.25 + crc) / data_bitrate


def load(rows: Iterable[Row], bitrate: int, data_bitrate: int | None) -> float:
    """Share of the bus that frames take which each come in their cycle; of a message with pages, its pages alone."""
    rows = list(rows)
    paged = {row.message.key for row in rows if row.page is not None}
    sent = (row for row in rows if row.page is not None or row.message.key not in paged)
    return sum(frame_s(row.message, bitrate, data_bitrate) / row.cycle_s for row in sent)
