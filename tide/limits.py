"""What tide can hold: the limits, and the checks of ids, names, documents and functions.

One set of rules for `put` and for the server (PROTOCOL.md, "Limits"), so that nothing reaches
the outbox that the server would refuse for its form.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from tide.errors import CollectionNameError, DocumentError, IdError, UsageError

__all__ = [
    "MAX_BODY",
    "MAX_DEPTH",
    "MAX_DOC",
    "MAX_ID",
    "MAX_INFLATED",
    "MAX_OPS",
    "MAX_PAGE",
    "MAX_RETRY_AFTER",
    "check_collection",
    "check_function",
    "check_id",
    "check_text",
    "encode_document",
]

MAX_DOC = 1 << 20
"""The longest document, in bytes of its JSON text as UTF-8."""
MAX_DEPTH = 64
"""The deepest nesting of objects and arrays; the document itself is depth 1."""
MAX_ID = 255
"""The longest id, in bytes of UTF-8."""
MAX_OPS = 500
"""The most ops in one request."""
MAX_PAGE = 5000
"""The most changes in one response."""
MAX_BODY = 4 << 20
"""The longest body on the wire, in bytes; also where a page of changes ends."""
MAX_INFLATED = 8 << 20
"""The longest body after inflating, in bytes."""
MAX_RETRY_AFTER = 3600.0
"""The longest that a server can ask to be left alone, in seconds."""

_COLLECTION = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_CONTROL_OR_SURROGATE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Text without these holds no surrogate, no number out of range and no deep nesting.
_SUSPICIOUS = re.compile(r"[\ud800-\udfff]|\\u[dD]|[0-9]{19}|[0-9][eE]|NaN|Infinity")
_Path = tuple[str | int, ...]
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def check_collection(name: object) -> str:
    """*name*, if it can name a collection; else a `CollectionNameError`."""
    if isinstance(name, str) and _COLLECTION.fullmatch(name):
        return name
    raise CollectionNameError(
        f"{_shown(name)} can't name a collection: use 1 to 64 of A-Z a-z 0-9 _ . - after a letter"
    )


def check_id(id_: object) -> str:
    """*id_*, if it can name a document; else an `IdError`."""
    if not isinstance(id_, str):
        raise IdError(f"an id must be a str, not {type(id_).__name__}: {_shown(id_)}; use str()")
    if not id_:
        raise IdError("an id can't be empty; add() makes one for you")
    if found := _CONTROL_OR_SURROGATE.search(id_):
        raise IdError(
            f"{_shown(id_)} can't be an id: no control characters or lone surrogates "
            f"(U+{ord(found[0]):04X} at {found.start()})"
        )
    if len(id_) > MAX_ID // 4 and len(id_.encode()) > MAX_ID:
        raise IdError(f"{_shown(id_)} is too long for an id: at most {MAX_ID} bytes of UTF-8")
    return id_


def encode_document(doc: object) -> str:
    """The JSON text of *doc*; a `DocumentError` if it would not come back equal."""
    if not isinstance(doc, dict):
        raise DocumentError("", f"must be a dict, not {type(doc).__name__}: {_shown(doc)}")
    _check_values(doc)
    text = _encode(doc)
    _check_size(text)
    return text


def check_text(text: str, doc: object) -> str:
    """The text to store for a document that came as *text* and reads as *doc*.

    That is *text* as it came, unless something in it had to be looked at: then it is written
    again, so that a key that stands there twice hides nothing from a later reader.

    Raises:
        DocumentError: it can't be stored.
    """
    if not isinstance(doc, dict):
        raise DocumentError("", f"must be a JSON object, not {_shown(doc)}")
    if _SUSPICIOUS.search(text) or text.count("{") + text.count("[") > MAX_DEPTH:
        _check_values(doc)
        text = _encode(doc)
    _check_size(text)
    return text


def _check_size(text: str) -> None:
    # UTF-8 needs at most 4 bytes a character, so short text needs no encoding to be sure.
    if len(text) > MAX_DOC // 4 and (size := len(text.encode())) > MAX_DOC:
        reason = f"is too large: {size} bytes of JSON, at most {MAX_DOC}; keep blobs elsewhere"
        raise DocumentError("", reason, code="too_large")


def _check_values(doc: dict[Any, Any]) -> None:
    """Look at every value of *doc*, without recursion: it may be deeper than Python's stack."""
    waiting: list[tuple[_Path, Any]] = [((), doc)]
    seen = 0
    while waiting:
        path, container = waiting.pop()
        seen += len(container)
        if seen > MAX_DOC:  # a few lists that hold each other can stand for billions of values
            raise DocumentError("", f"has more than {MAX_DOC} values; split it", code="too_large")
        if isinstance(container, dict):
            _check_keys(path, container)
            items: Iterable[tuple[str | int, object]] = container.items()
        else:
            items = enumerate(container)
        for key, value in items:
            if isinstance(value, dict | list):
                if len(path) + 2 > MAX_DEPTH:
                    reason = f"is nested more than {MAX_DEPTH} deep; flatten the document"
                    raise DocumentError(_shown_path((*path, key)), reason)
                waiting.append(((*path, key), value))
            elif wrong := _wrong(value):
                raise DocumentError(_shown_path((*path, key)), wrong)


def _check_keys(path: _Path, doc: dict[Any, Any]) -> None:
    for key in doc:
        if not isinstance(key, str):
            reason = f"has the key {_shown(key)}, a {type(key).__name__}; keys must be str"
        elif not key.isascii() and _SURROGATE.search(key):
            reason = f"has the key {_shown(key)} with a lone surrogate, which is not Unicode text"
        else:
            continue
        raise DocumentError(_shown_path(path), reason)


def _wrong(value: object) -> str | None:
    """Why a *value* that is neither dict nor list can't be stored; None if it can."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not value.isascii() and _SURROGATE.search(value):
            return f"{_shown(value)} has a lone surrogate, which is not Unicode text"
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is no JSON number; use None"
    if isinstance(value, int):
        return None if _fits_64_bits(value) else f"{_shown(value)} is beyond 64 bits; use a str"
    kind = type(value).__name__
    hint = _HINTS.get(kind, "store str, int, float, bool, None, list and dict")
    return f"{_shown(value)} is a {kind}, which does not come back equal; {hint}"


def _fits_64_bits(value: int) -> bool:
    return -(2**63) <= value < 2**63


_HINTS = {
    "tuple": "use a list",
    "set": "use a list",
    "frozenset": "use a list",
    "datetime": "use .isoformat()",
    "date": "use .isoformat()",
    "time": "use .isoformat()",
    "bytes": "use text, such as base64",
    "bytearray": "use text, such as base64",
    "Decimal": "use str()",
    "UUID": "use str()",
}


def _shown_path(path: _Path) -> str:
    """*path* as it would be typed after the document, such as ``tags[2].price``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{_shown(step)}]"
    return text


def check_function(value: object, words: str, instead: str = "") -> None:
    """Raise a `UsageError` unless *value* is a plain function; *words* say what it has to be."""
    if not callable(value):
        raise UsageError(f"{words}, not {_shown(value)}")
    call = type(value).__call__  # that of an object with methods
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call):
        raise UsageError(f"{words}, and {_shown(value)} is async{instead}")


def _shown(value: object) -> str:
    """A short form of *value* for an error message."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = ascii(value)
    except Exception:  # noqa: BLE001 - nested too deep, a number of too many digits, a __repr__ that fails
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
