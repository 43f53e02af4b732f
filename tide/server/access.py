"""What a caller may do in a space, and what may be written there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tide.codec import loads

__all__ = ["Access", "Validate", "Write"]


@dataclass(frozen=True)
class Access:
    """Who a caller is and what they may do in a space.

    Attributes:
        who: a name for logs and for *validate*; not a secret.
        read: whether they get the space's documents.
        write: whether their ops are accepted.
        expires_at: when the credentials end, Unix seconds; None: never. A live stream ends then.
    """

    who: str
    read: bool = True
    write: bool = True
    expires_at: float | None = None


@dataclass(frozen=True)
class Write:
    """One op, as a *validate* function gets it.

    Attributes:
        who: see `Access`.
        space: the space's name.
        collection: the collection's name.
        id: the document's id.
    """

    who: str
    space: str
    collection: str
    id: str
    _text: str | None

    @cached_property
    def doc(self) -> dict[str, Any] | None:
        """The document; None for a delete."""
        return None if self._text is None else loads(self._text)


Validate = Callable[[Write], str | None]
"""Says why a write is refused, in words for its author; None to accept it."""
