"""The minimal client of PROTOCOL.md, as it stands there, against the server."""

from __future__ import annotations

import re
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import served
from tide import Tide
from tide.server import create_app

SPEC = (Path(__file__).parent.parent / "PROTOCOL.md").read_text("utf-8")


@pytest.fixture
def core_client() -> Callable[[str], Any]:
    """The class `CoreClient` of the spec."""
    found = re.search(r"<!-- core client -->\n```python\n(.*?)\n```", SPEC, re.DOTALL)
    assert found
    scope: dict[str, Any] = {}
    exec(found[1], scope)
    client: Callable[[str], Any] = scope["CoreClient"]
    return client


def documents(client: Any) -> dict[tuple[str, str], Any]:
    """What *client* shows: no tombstones."""
    return {key: op["doc"] for key, op in client.held.items() if op["doc"] is not None}


def test_two_core_clients_converge(core_client: Callable[[str], Any], tmp_path: Path) -> None:
    with served(create_app(tmp_path / "server.db")) as endpoint:
        alice, bob = core_client(endpoint), core_client(endpoint)
        alice.write("todos", "1", {"text": "bread"})
        alice.write("todos", "2", {"text": "milk ☕"})
        alice.sync()
        bob.sync()
        bob.write("todos", "1", {"text": "rye bread"})
        bob.write("todos", "2", None)
        for number in range(250):
            bob.write("notes", str(number), {"n": number})
        bob.sync()
        alice.sync()
    assert alice.held == bob.held
    assert documents(alice)["todos", "1"] == {"text": "rye bread"}
    assert ("todos", "2") not in documents(alice)
    assert len(alice.held) == 252


async def test_a_core_client_and_a_full_node_converge(
    core_client: Callable[[str], Any], tmp_path: Path
) -> None:
    with served(create_app(tmp_path / "server.db")) as endpoint:
        core = core_client(endpoint)
        core.write("todos", "1", {"text": "bread"})
        core.sync()
        async with Tide(tmp_path / "app.db", endpoint) as tide:
            todos = tide.collection("todos")
            await tide.sync_once()
            await todos.update("1", {"done": True})
            await todos.put("2", {"text": "milk"})
            await tide.sync_once()
            core.sync()
            assert {("todos", id_): doc for id_, doc in (await todos.all()).items()} == documents(
                core
            )
    assert documents(core)["todos", "1"] == {"text": "bread", "done": True}


def test_f26_a_core_client_gives_back_what_a_server_lost(
    core_client: Callable[[str], Any], tmp_path: Path
) -> None:
    with served(create_app(tmp_path / "server.db")) as endpoint:
        client = core_client(endpoint)
        client.write("todos", "1", {"text": "bread"})
        client.sync()
    with served(create_app(tmp_path / "empty.db")) as client.endpoint:
        client.sync()
        other = core_client(client.endpoint)
        other.sync()
    assert documents(other) == documents(client) == {("todos", "1"): {"text": "bread"}}


def test_f29_a_core_client_that_was_away_for_long_forgets_what_was_deleted(
    core_client: Callable[[str], Any], tmp_path: Path
) -> None:
    app = create_app(tmp_path / "server.db")
    with served(app) as endpoint:
        alice, bob = core_client(endpoint), core_client(endpoint)
        alice.write("todos", "1", {"text": "bread"})
        alice.write("todos", "2", {"text": "milk"})
        alice.sync()
        bob.sync()
        alice.write("todos", "1", None)
        alice.sync()
        app.state.service._now = lambda: time.time() + 91 * 86400
        bob.write("todos", "3", {"text": "tea"})
        bob.sync()
        assert documents(bob) == {("todos", "2"): {"text": "milk"}, ("todos", "3"): {"text": "tea"}}


def test_f10_a_core_client_hears_that_its_batch_is_refused(
    core_client: Callable[[str], Any], tmp_path: Path
) -> None:
    with served(create_app(tmp_path / "server.db")) as endpoint:
        client = core_client(endpoint)
        client.write("todos", "", {"text": "nameless"})
        with pytest.raises(urllib.error.HTTPError, match="422") as caught:
            client.sync()
        caught.value.close()
    assert client.outbox
