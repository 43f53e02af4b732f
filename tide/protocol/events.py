"""The live stream's framing: events in the text/event-stream format, written and read.

The format is that of the HTML standard, section "Server-sent events". Pure: no I/O.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tide.errors import ProtocolError

__all__ = ["COMMENT", "HEARTBEAT", "Event", "EventReader", "encode_event"]

COMMENT: Final = b":\n\n"
"""What a server sends now and then so that both sides know the other is there."""

HEARTBEAT: Final = 15.0
"""Seconds of silence after which a server sends that."""

MAX_EVENT: Final = 8 << 20
"""The longest event that is read, in bytes."""


class Event(NamedTuple):
    """One event of a stream.

    Attributes:
        name: what it is, ``changes`` or ``bye``; empty for a mere sign of life.
        data: what it carries.
    """

    name: str
    data: bytes = b""


def encode_event(name: str, data: bytes) -> bytes:
    """The bytes of an event; *data* is JSON text without line breaks."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


class EventReader:
    r"""Cuts a stream into events, as its bytes come.

    >>> EventReader().feed(b"event: bye\ndata: {}\n\n")
    [Event(name='bye', data=b'{}')]
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._name = ""
        self._data: list[bytes] = []
        self._held = 0  # bytes of data, with their line breaks

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that *chunk* completes; a comment counts as one without a name.

        Raises:
            ProtocolError: an event has more than 8 MiB.
        """
        self._rest += chunk
        events: list[Event] = []
        if b"\n" in chunk:
            *lines, self._rest = self._rest.split(b"\n")
            events = [event for line in lines if (event := self._line(bytes(line)))]
        if self._held + len(self._rest) > MAX_EVENT:
            raise ProtocolError(f"the live stream has an event of more than {MAX_EVENT} bytes")
        return events

    def _line(self, line: bytes) -> Event | None:
        line = line.removesuffix(b"\r")
        if not line:
            event = Event(self._name or "message", b"\n".join(self._data)) if self._data else None
            self._name, self._data, self._held = "", [], 0
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value.decode(errors="replace")
        elif field == b"data":
            self._data.append(value)
            self._held += len(value) + 1
        return Event("") if not field else None
