"""Where ids and jitter come from: the only module that asks the system for randomness.

Everything else takes its chance from here, so that a simulator has one place to replace.
"""

from __future__ import annotations

import random
import secrets
import threading
import time

__all__ = ["jitter", "new_device", "new_id", "new_incarnation", "token"]

_lock = threading.Lock()
_last_tick = 0


def token(size: int) -> str:
    """*size* random bytes, as hex."""
    return secrets.token_hex(size)


def jitter(low: float, high: float) -> float:
    """A number between *low* and *high*, so that many nodes don't do the same at once."""
    return random.uniform(low, high)  # noqa: S311 - spreads load, keeps no secret


def new_device() -> str:
    """The stable first half of a file's node ids."""
    return token(8)


def new_incarnation(device: str) -> str:
    """A node id for one open of a store: the device's part and a fresh one.

    Fresh at every open, so that copied files, restored backups and several processes on one
    file can never make the same stamp twice.
    """
    return f"{device}.{token(6)}"


def new_id() -> str:
    """A new document id: a UUIDv7 (RFC 9562), so ids sort by the time they were made.

    Ids made by one process are strictly increasing, also within a millisecond: the 12 bits after
    the milliseconds count on (RFC 9562, section 6.2). Ordered ids are also much faster to store.
    """
    global _last_tick  # noqa: PLW0603 - one series of ids for the whole process
    with _lock:
        _last_tick = tick = max(_last_tick + 1, time.time_ns() // 1_000_000 << 12)
    millis, sub = divmod(tick, 1 << 12)
    value = millis << 80 | 0x7 << 76 | sub << 64 | 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
