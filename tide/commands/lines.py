"""The lines of an export: a document each, as ``{"collection": …, "id": …, "doc": …}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from tide.codec import loads, quote
from tide.limits import MAX_DOC, check_collection, check_id, encode_document

__all__ = ["Line", "encode", "read", "read_lines"]

LONGEST = 8 * MAX_DOC
"""A line may be longer than its document: it may have spaces, and escapes for characters."""
_KEYS = {"collection", "id", "doc"}


class Line(NamedTuple):
    """A document with its place."""

    collection: str
    id: str
    doc: dict[str, Any]


def encode(collection: str, id_: str, text: str) -> bytes:
    """The line of a document whose JSON is *text*."""
    line = f'{{"collection":{quote(collection)},"id":{quote(id_)},"doc":{text}}}\n'
    return line.encode()


def read_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of *file* with their numbers, but for empty ones; of one too long, the start."""
    number = 0
    while text := file.readline(LONGEST + 1):
        number += 1
        rest = text
        while not rest.endswith(b"\n") and (rest := file.readline(LONGEST)):
            pass
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")  # some editors put a mark before UTF-8
        if text.strip():
            yield number, text


def read(text: bytes) -> Line:
    """What a line says.

    Raises:
        ValueError: it can't be imported; the message says why.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    try:
        fields = loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(fields, dict) or fields.keys() != _KEYS:
        raise ValueError('it has to be an object with "collection", "id" and "doc", no more')
    line = Line(check_collection(fields["collection"]), check_id(fields["id"]), fields["doc"])
    encode_document(line.doc)
    return line
