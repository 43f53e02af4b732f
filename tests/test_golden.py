"""The conversation of PROTOCOL.md, byte by byte: `tests/golden/`.

Each exchange is a file ``NN-name.request.json`` and a file ``NN-name.STATUS.json``, its answer.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tide.answers import Answer, Refused, Reset, read_answer
from tide.errors import RequestError
from tide.protocol import Request, Response, parse_request, parsing
from tide.server.access import Access
from tide.server.service import Service
from tide.server.storage import sqlite

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
SPEC = (HERE.parent / "PROTOCOL.md").read_text("utf-8")
NAMES = sorted(path.name.removesuffix(".request.json") for path in GOLDEN.glob("*.request.json"))
REFUSED = {"17-malformed", "18-too-many-ops"}
UNWRITTEN = REFUSED | {"06-rejected", "13-core-rejected"}  # hold what our code never writes
EXAMPLE = re.compile(r"^`([\w.-]+\.json)`\n\n```json\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


def asked(name: str) -> bytes:
    """The body of the request of an exchange."""
    return (GOLDEN / f"{name}.request.json").read_bytes()


def answer_file(name: str) -> Path:
    """The file of its answer."""
    (path,) = GOLDEN.glob(f"{name}.[0-9]*.json")
    return path


def answered(name: str) -> Answer:
    """Its answer."""
    path = answer_file(name)
    status = int(path.name.split(".")[1])
    kind = "application/json" if status == 200 else "application/problem+json"
    return Answer(status, path.read_bytes(), {"content-type": kind})


def meaning(name: str) -> Response | Reset | Refused:
    """What the answer means to the node that asked."""
    request = (
        Request("alice.phone.0001", None, ()) if name in REFUSED else parse_request(asked(name))
    )
    return read_answer(answered(name), request)


def response(name: str) -> Response:
    got = meaning(name)
    assert isinstance(got, Response)
    return got


def statuses(name: str) -> list[str]:
    return [result.status for result in response(name).results or ()]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNWRITTEN])
def test_each_request_is_written_by_our_own_code_to_the_byte(name: str) -> None:
    assert parse_request(asked(name)).encode() == asked(name)


@pytest.mark.parametrize("name", [name for name in NAMES if ".200." in answer_file(name).name])
def test_each_response_is_written_by_our_own_code_to_the_byte(name: str) -> None:
    assert response(name).encode() == answered(name).body


def test_every_example_of_the_spec_is_a_golden_file() -> None:
    examples = EXAMPLE.findall(SPEC)
    assert len(examples) >= 20
    for file, text in examples:
        assert text == (GOLDEN / file).read_text("utf-8"), file


def test_every_golden_file_but_the_longest_is_an_example_of_the_spec() -> None:
    shown = {file for file, _ in EXAMPLE.findall(SPEC)}
    assert {path.name for path in GOLDEN.iterdir()} - shown == {"18-too-many-ops.request.json"}


def test_every_test_file_that_the_spec_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)", SPEC))
    assert [path for path in named if not (HERE.parent / path).is_file()] == []


# What the answers mean


def test_a_push_is_acknowledged_op_by_op() -> None:
    assert statuses("01-first-push") == ["ok", "ok"]


def test_f01_a_replay_is_acknowledged_again_and_changes_nothing() -> None:
    assert asked("02-replay") == asked("01-first-push")
    assert statuses("02-replay") == ["ok", "ok"]
    assert response("02-replay").receipt == response("01-first-push").receipt


def test_a_pull_from_nothing_gives_everything_in_its_order() -> None:
    assert [op.id for op in response("03-pull").changes] == ["t1", "t2"]
    assert not response("03-pull").has_more


def test_an_op_that_is_superseded_comes_with_the_winner() -> None:
    (result,) = response("05-superseded").results or ()
    assert (result.status, result.current) == (
        "superseded",
        parse_request(asked("04-update")).ops[0],
    )


def test_f11_a_rejected_op_does_not_hold_up_its_neighbour() -> None:
    rejected, ok = response("06-rejected").results or ()
    assert (rejected.status, rejected.code, rejected.current) == ("rejected", "invalid_id", None)
    assert ok.status == "ok"


def test_f18_a_counter_too_far_ahead_is_sent_back() -> None:
    answer = response("07-restamp")
    (result,) = answer.results or ()
    assert (result.status, result.reason) == ("restamp", "clock_ahead")
    assert result.min_counter == answer.clock


def test_f17_pages_end_at_their_last_change_and_at_the_head() -> None:
    first, last = response("08-page"), response("09-last-page")
    assert ([op.id for op in first.changes], first.has_more) == (["t2", "t1"], True)
    assert ([op.id for op in last.changes], last.has_more) == (["t3"], False)
    assert parse_request(asked("09-last-page")).cursor == first.cursor
    assert last.cursor == first.receipt


def test_a_delete_travels_as_a_change_without_a_document() -> None:
    assert statuses("10-delete") == ["ok"]
    (change,) = response("11-tombstone").changes
    assert (change.id, change.doc) == ("t2", None)


def test_f10_a_core_client_gets_no_results_and_a_refusal_for_the_whole_batch() -> None:
    assert response("12-core-push").results is None
    refused = meaning("13-core-rejected")
    assert isinstance(refused, Refused)
    assert answered("13-core-rejected").status == 422


def test_resets_say_which() -> None:
    assert meaning("14-reset-restored") == Reset("restored")
    assert meaning("15-reset-horizon") == Reset("horizon")


def test_f30_an_op_older_than_what_was_forgotten_is_sent_back() -> None:
    (result,) = response("16-forgotten").results or ()
    assert (result.status, result.reason) == ("restamp", "forgotten")


def test_refusals_say_why() -> None:
    malformed, many = meaning("17-malformed"), meaning("18-too-many-ops")
    assert isinstance(malformed, Refused)
    assert (malformed.code, malformed.too_large) == ("invalid_request", False)
    assert isinstance(many, Refused)
    assert (many.code, many.too_large) == ("too_large", True)


# The server


async def replies(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, int, bytes]]:
    """What a new server answers to the conversation: name, status, body."""
    monkeypatch.setattr(sqlite, "token", lambda size: "e1" * size)  # its epoch
    now = 0.0
    service = Service(sqlite.SqliteStorage(db, now=lambda: now), now=lambda: now)
    for name in NAMES:
        if name == "15-reset-horizon":
            now += 91 * 86400  # the tombstone of 10-delete is forgotten
        try:
            yield name, 200, await service.exchange("default", asked(name), Access("anybody"))
        except RequestError as error:
            yield name, error.problem.status, error.problem.encode()
    await service.aclose()


@pytest.mark.parametrize("codec", ["pure", "fast"])
async def test_the_server_answers_the_conversation_to_the_byte(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if codec == "fast":
        pytest.importorskip("msgspec")
    module = importlib.import_module(f"tide.codec.{codec}")
    monkeypatch.setattr(parsing, "load_request", module.load_request)
    async for name, status, body in replies(tmp_path / "server.db", monkeypatch):
        expected = answered(name)
        assert (name, status, body.decode()) == (name, expected.status, expected.body.decode())
