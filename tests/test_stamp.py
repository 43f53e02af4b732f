"""The order of writes and the Lamport clock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tide.stamp import MAX_COUNTER, MAX_WIRE_COUNTER, Clock, Stamp, is_counter, is_node_id

NODE_IDS = st.from_regex(r"\A[0-9a-z.]{8,64}\Z")
STAMPS = st.builds(Stamp, st.integers(1, MAX_COUNTER), NODE_IDS)

# | `[7,"node.aa1"]` | `[7,"node.aa2"]` | b |
VECTOR = re.compile(
    r'^\| `\[(\d+),"([^"]+)"\]` \| `\[(\d+),"([^"]+)"\]` \| (a|b|same) \|$', re.MULTILINE
)
PROTOCOL_MD = Path(__file__).parent.parent / "PROTOCOL.md"


def conformance_vectors() -> list[tuple[Stamp, Stamp, str]]:
    """The table of PROTOCOL.md, "Order of writes"."""
    return [
        (Stamp(int(a), na), Stamp(int(b), nb), winner)
        for a, na, b, nb, winner in VECTOR.findall(PROTOCOL_MD.read_text("utf-8"))
    ]


def test_there_are_conformance_vectors_in_the_spec() -> None:
    assert len(conformance_vectors()) >= 10


@pytest.mark.parametrize(("a", "b", "winner"), conformance_vectors())
def test_f23_the_winner_of_each_conformance_vector_is_as_the_spec_says(
    a: Stamp, b: Stamp, winner: str
) -> None:
    assert all(map(is_counter, (a.counter, b.counter)))
    assert all(map(is_node_id, (a.node_id, b.node_id)))
    assert winner == ("a" if a > b else "b" if b > a else "same")


@settings(deadline=None)
@given(STAMPS, STAMPS, STAMPS)
def test_stamps_are_in_a_total_order(a: Stamp, b: Stamp, c: Stamp) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    assert not a < b < c or a < c


@settings(deadline=None)
@given(STAMPS, STAMPS)
def test_f23_node_ids_compare_as_their_bytes(a: Stamp, b: Stamp) -> None:
    as_bytes = [(stamp.counter, stamp.node_id.encode()) for stamp in (a, b)]
    assert (a < b) == (as_bytes[0] < as_bytes[1])


@pytest.mark.parametrize("counter", [1, 2**32, MAX_WIRE_COUNTER, MAX_COUNTER])
def test_a_counter_is_a_whole_number_from_1_to_2_to_the_53_minus_1(counter: int) -> None:
    assert is_counter(counter)


@pytest.mark.parametrize(
    "value", [0, -1, MAX_COUNTER + 1, 2**63 - 1, 2**63, 1e300, 1.0, 1.5, "5", True, None, [], {}]
)
def test_f19_nothing_else_is_a_counter(value: object) -> None:
    assert not is_counter(value)


def test_a_counter_from_the_wire_leaves_a_node_room_to_count_on() -> None:
    clock = Clock("node.aaa", MAX_WIRE_COUNTER)
    assert is_counter(clock.tick().counter + 2**31)


@pytest.mark.parametrize("node_id", ["a" * 8, "z" * 64, "0123456789.abcdef", "........"])
def test_a_node_id_has_8_to_64_digits_small_letters_and_dots(node_id: str) -> None:
    assert is_node_id(node_id)


@pytest.mark.parametrize(
    "value",
    [
        "a" * 7,
        "a" * 65,
        "AAAAAAAA",
        "aaaaaaa\n",
        "aaaaaaaa\n",
        "aaaa-aaa",
        "\u0430" * 9,
        "٣" * 8,
        "aaaaaaa\x00",
        "",
        None,
        12345678,
        b"aaaaaaaa",
        ["aaaaaaaa"],
    ],
)
def test_nothing_else_is_a_node_id(value: object) -> None:
    assert not is_node_id(value)


def test_each_tick_is_greater_than_the_last() -> None:
    clock = Clock("node.aaa")
    assert [clock.tick() for _ in range(3)] == [Stamp(n, "node.aaa") for n in (1, 2, 3)]


def test_a_tick_exceeds_everything_observed() -> None:
    clock = Clock("node.aaa", 3)
    clock.observe(10)
    assert clock.tick() == Stamp(11, "node.aaa")


def test_f20_a_tick_exceeds_the_stamp_of_the_document_that_it_replaces() -> None:
    clock = Clock("node.aaa", 3)
    assert clock.tick(above=50).counter == 51
    assert clock.tick(above=7).counter == 52


def test_the_clock_never_goes_back() -> None:
    clock = Clock("node.aaa", 10)
    clock.observe(4)
    assert clock.counter == 10
