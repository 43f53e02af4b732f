"""Ids: random where they must differ, ordered where that helps."""

from __future__ import annotations

import threading
import time
import uuid

import pytest

from tide import ids
from tide.limits import check_id
from tide.stamp import is_node_id


def test_tokens_are_hex_of_the_size_asked_for_and_differ() -> None:
    assert len(bytes.fromhex(ids.token(12))) == 12
    assert ids.token(12) != ids.token(12)


def test_jitter_lies_between_its_bounds() -> None:
    made = {ids.jitter(2.0, 3.0) for _ in range(100)}
    assert len(made) > 1
    assert all(2.0 <= seconds <= 3.0 for seconds in made)


def test_f21_every_incarnation_of_a_device_is_a_node_id_of_its_own() -> None:
    device = ids.new_device()
    incarnations = {ids.new_incarnation(device) for _ in range(100)}
    assert len(incarnations) == 100
    assert all(is_node_id(node_id) for node_id in incarnations)
    assert all(node_id.startswith(f"{device}.") for node_id in incarnations)


def test_a_new_id_is_a_uuid_of_version_7_that_tells_its_time() -> None:
    before = time.time_ns() // 1_000_000
    new = uuid.UUID(check_id(ids.new_id()))
    assert (new.version, new.variant) == (7, uuid.RFC_4122)
    assert before <= new.int >> 80 <= time.time_ns() // 1_000_000 + 1_000


def test_new_ids_grow_also_within_a_millisecond() -> None:
    made = [ids.new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_new_ids_grow_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert first < ids.new_id()


def test_new_ids_of_many_threads_differ() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(ids.new_id() for _ in range(500)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2_000
