"""The order of writes: stamps, and the Lamport clock that makes them.

A stamp is ``(counter, node_id)``; the greater stamp wins (PROTOCOL.md, "Order of writes"). The
clock is L. Lamport's (1978): it ticks on a local write and observes every stamp that comes in.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeGuard

__all__ = ["MAX_COUNTER", "MAX_WIRE_COUNTER", "Clock", "Stamp", "is_counter", "is_node_id"]

MAX_COUNTER = 2**53 - 1
"""The greatest counter: the greatest whole number that every JSON reader keeps exact."""

MAX_WIRE_COUNTER = MAX_COUNTER - 2**32
"""The greatest counter taken from the wire, so that a node always has room to count on."""

_NODE_ID = re.compile(r"[0-9a-z.]{8,64}")


class Stamp(NamedTuple):
    """When a write happened, in an order that all nodes agree on; the greater one wins.

    Node ids are ASCII, so comparing them as strings compares their bytes.

    >>> Stamp(2, "aaaaaaaa") > Stamp(1, "bbbbbbbb")
    True
    """

    counter: int
    node_id: str


def is_counter(value: object) -> TypeGuard[int]:
    """Whether *value* can be a counter: a whole number (never a bool) from 1 to 2^53-1."""
    return type(value) is int and 1 <= value <= MAX_COUNTER


def is_node_id(value: object) -> TypeGuard[str]:
    """Whether *value* can be a node id: 8 to 64 of ``0-9``, ``a-z`` and ``.``."""
    return isinstance(value, str) and _NODE_ID.fullmatch(value) is not None


class Clock:
    """A Lamport clock: the counter that this node's next write has to exceed."""

    def __init__(self, node_id: str, counter: int = 0) -> None:
        self.node_id = node_id
        self.counter = counter

    def tick(self, above: int = 0) -> Stamp:
        """A stamp for a local write, greater than all seen so far and than counter *above*."""
        self.counter = max(self.counter, above) + 1
        return Stamp(self.counter, self.node_id)

    def observe(self, counter: int) -> None:
        """Take note of a *counter* that came from elsewhere; the clock never goes back."""
        self.counter = max(self.counter, counter)
