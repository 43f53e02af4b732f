"""Ordered against a sorted list, small chunks and large."""

from __future__ import annotations

import random
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tide import ordered
from tide.ordered import Ordered, sort_key

KEYS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals(allow_nan=False)
    | st.text(max_size=2)
    | st.binary(max_size=2)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(timezone.utc))
    | st.times(timezones=st.none() | st.just(timezone.utc))
    | st.timedeltas()
    | st.uuids(),
    lambda parts: st.lists(parts, max_size=3) | st.lists(parts, max_size=3).map(tuple),
    max_leaves=5,
)


@pytest.mark.parametrize("chunk", [1, 2, 3, 512])
@pytest.mark.parametrize("size", [0, 1, 5, 600])
def test_it_is_a_sorted_list(monkeypatch, chunk, size):
    monkeypatch.setattr(ordered, "CHUNK", chunk)
    seed = chunk * size
    print("seed", seed)  # noqa: T201 - to be shown with a failure
    chance = random.Random(seed)
    model = [(chance.randrange(size), number) for number in range(size)]
    real = Ordered(model)
    model.sort()
    for number in range(size, 2 * size + 100):
        if model and chance.random() < 0.6:
            gone = model.pop(chance.randrange(len(model)))
            real.remove(gone)
        else:
            entry = chance.randrange(size + 5), number
            real.add(entry)
            model.append(entry)
            model.sort()
        if number % 37 == 0 or size < 10:
            assert list(real) == model
            assert list(reversed(real)) == model[::-1]
            assert len(real) == len(model)
            assert [real.place(entry) for entry in model] == list(range(len(model)))
    for entry in model:
        real.remove(entry)
    assert not len(real)
    assert list(real) == []
    real.add((1, 2))
    assert list(real) == [(1, 2)]


def test_the_chunks_stay_short_so_that_a_change_moves_few():
    real = Ordered()
    for number in range(20_000):
        real.add((number,))
    assert max(map(len, real._chunks)) <= 2 * ordered.CHUNK
    assert len(real._chunks) <= 20_000 / ordered.CHUNK + 1


@given(st.lists(KEYS, max_size=8))
def test_any_keys_have_one_order(keys):
    ranked = [sort_key(key) for key in keys]
    once = sorted(ranked)
    for a in ranked:
        for b in ranked:
            assert (a < b) + (a == b) + (a > b) == 1
    assert all(a <= b for number, a in enumerate(once) for b in once[number:])


@pytest.mark.parametrize(
    ("smaller", "greater"),
    [
        (None, -1),
        (float("nan"), float("-inf")),
        (Decimal("nan"), -1),
        (False, True),
        (0.5, True),
        (2**63, 2.0**64),
        (Decimal("0.1"), 0.2),
        (10**400, "a"),
        ("Z", "a"),
        ("\uffff", "\U00010000"),  # as ids: by code point
        ("z", []),
        ([], [None]),
        ([1, None], [1, 0]),
        ((1, "a"), [1, "b"]),
        ([9], b""),
        (datetime(2024, 1, 1), datetime(2020, 1, 1, tzinfo=timezone.utc)),  # noqa: DTZ001
        (
            datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 1, 1, 0, tzinfo=timezone.utc),
        ),
        (time(5), time(1, tzinfo=timezone.utc)),
        (timedelta(1), timedelta(2)),
    ],
)
def test_the_order_of_keys_is(smaller, greater):
    assert sort_key(smaller) < sort_key(greater)
    assert not sort_key(greater) < sort_key(smaller)


@pytest.mark.parametrize("key", [{}, {1}, object(), 1j, [1, {}], (None, (object(),)), type])
def test_what_has_no_order_is_refused(key):
    with pytest.raises(TypeError, match="there is no order for"):
        sort_key(key)
