"""The framing of live streams: what is written is read, however the bytes are cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import PATIENCE
from tide.errors import ProtocolError
from tide.protocol import COMMENT, Event, EventReader, encode_event, events, parse_page
from tide.server import Access
from tide.server.service import Service
from tide.server.storage import sqlite

line = st.binary(max_size=40).map(lambda text: re.sub(rb"[\r\n]", b" ", text))
name = st.sampled_from(["changes", "bye", "comments"])


def cut(data, places):
    """*data* in pieces that end at *places*."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def read(*chunks):
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


@given(st.lists(st.tuples(name, line)), st.lists(st.integers(min_value=0)), st.booleans())
def test_what_is_written_is_read_however_it_is_cut_and_whatever_ends_its_lines(sent, places, crlf):
    data = b"".join(encode_event(*event) for event in sent)
    if crlf:
        data = data.replace(b"\n", b"\r\n")
    assert read(*cut(data, places)) == [Event(*event) for event in sent]


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_bytes_give_events_or_nothing(chunks):
    for event in read(*chunks):
        assert isinstance(event, Event)


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0)))
def test_where_the_bytes_are_cut_makes_no_difference(data, places):
    assert read(*cut(data, places)) == read(data)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (COMMENT, [Event("")]),
        (b": a proxy says hello\n", [Event("")]),
        (b"data: 1\n\n", [Event("message", b"1")]),
        (b"data:1\n\n", [Event("message", b"1")]),
        (b"data:  1\n\n", [Event("message", b" 1")]),
        (b"data\n\n", [Event("message", b"")]),
        (b"data: 1\ndata: 2\n\n", [Event("message", b"1\n2")]),
        (b"event: bye\n\n", []),  # without data it is none
        (b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\n", [Event("b", b"1"), Event("message", b"2")]),
        (b"id: 7\nretry: 1\nwhat: ever\ndata: 1\n\n", [Event("message", b"1")]),
        (b"data: 1\n", []),  # cut off: it never came to its end
        (b"\n\n\n", []),
        (b"event: \xff\ndata: 1\n\n", [Event("\ufffd", b"1")]),
        (b"<html>Please log in</html>\n\n", []),
    ],
)
def test_it_is_read_as_the_html_standard_says(sent, expected):
    assert read(sent) == expected


@pytest.mark.parametrize(
    "endless", [b"x" * 1000, b"data: " + b"x" * 1000 + b"\n", b"data\n", b"event: x\ndata:\n"]
)
def test_f40_an_event_without_an_end_is_given_up(endless, monkeypatch):
    monkeypatch.setattr(events, "MAX_EVENT", 10_000)
    with pytest.raises(ProtocolError, match="more than 10000 bytes"):
        read(*[endless] * 20_000)


def test_f40_many_events_are_not_too_many(monkeypatch):
    monkeypatch.setattr(events, "MAX_EVENT", 100)
    reader = EventReader()
    for _ in range(1000):
        assert reader.feed(encode_event("changes", b"x" * 50) + COMMENT) != []


# The example of the spec

HERE = Path(__file__).parent


def example():
    """The stream that PROTOCOL.md shows."""
    spec = (HERE.parent / "PROTOCOL.md").read_text("utf-8")
    (shown,) = re.findall(r"```text\n(event: changes\n.*?)\n```", spec, re.DOTALL)
    return f"{shown}\n\n".encode()


def asked(name):
    return (HERE / "golden" / f"{name}.request.json").read_bytes()


async def test_the_server_writes_the_stream_of_the_spec_to_the_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "token", lambda size: "e1" * size)  # its epoch
    service = Service(sqlite.SqliteStorage(tmp_path / "server.db"))
    access = Access("anybody")
    for name in ("01-first-push", "02-replay", "03-pull"):
        await service.exchange("default", asked(name), access)
    listener = await service.listen("default", access)
    sent = [await listener.next(PATIENCE), COMMENT]
    for name in ("04-update", "05-superseded", "06-rejected"):
        await service.exchange("default", asked(name), access)
        if name != "05-superseded":  # which changes nothing
            sent.append(await listener.next(PATIENCE))
    await service.aclose()
    sent.append(await listener.next(PATIENCE))
    assert b"".join(frame or b"" for frame in sent).decode() == example().decode()


def test_the_stream_of_the_spec_is_read_as_the_spec_says():
    found = read(example())
    assert [event.name for event in found] == ["changes", "", "changes", "changes", "bye"]
    pages = [parse_page(event.data) for event in found if event.name == "changes"]
    assert [[op.id for op in page.changes] for page in pages] == [[], ["t1"], ["t3"]]
    assert [page.since for page in pages[1:]] == [page.cursor for page in pages[:-1]]
