"""JSON text to and from Python values, at C speed when msgspec is installed (extra ``fast``).

Documents travel as their own JSON text. With msgspec it is cut out of a message as it came;
without, it is written again from what was read. Either way it was checked on the way in.
"""

from __future__ import annotations

from typing import Any

from tide.codec.wire_op import WireOp
from tide.errors import StoreCorruptError

try:
    from tide.codec import fast as _codec
except ImportError:
    from tide.codec import pure as _codec  # type: ignore[no-redef]

from tide.codec.pure import dumps, quote

__all__ = ["WireOp", "dumps", "load_request", "load_response", "loads", "loads_stored", "quote"]

loads = _codec.loads
load_request = _codec.load_request
load_response = _codec.load_response


def loads_stored(text: str) -> Any:
    """The value of *text*, which stands in a store and was checked on its way in.

    Raises:
        StoreCorruptError: damage has made something else of it.
    """
    try:
        return loads(text)
    except ValueError as error:
        raise StoreCorruptError(
            f"a stored document is damaged: {error}; put it again, or delete it"
        ) from error
