"""What tide can hold: collection names, ids and documents, and what it says of all others."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Any

import pytest

from tide import limits
from tide.errors import CollectionNameError, DocumentError, IdError
from tide.limits import check_collection, check_id, check_text, encode_document

HUGE = pytest.param(10**5000, id="huge")  # too many digits for str()


class Level(enum.IntEnum):
    HIGH = 5


class Colour(str, enum.Enum):
    RED = "red"


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested(depth: int) -> dict[str, Any]:
    """A document of *depth* objects and arrays."""
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    return {"a": value}


def refusal(doc: object) -> str:
    """What `encode_document` says of *doc*."""
    with pytest.raises(DocumentError) as caught:
        encode_document(doc)
    return str(caught.value)


# Collections


@pytest.mark.parametrize("name", ["t", "todos", "Todos.2_a-b", "a" * 64])
def test_a_collection_is_named_by_1_to_64_characters_after_a_letter(name: str) -> None:
    assert check_collection(name) is name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1a",
        "_a",
        ".a",
        "a" * 65,
        "a b",
        "é",
        "a\n",
        "a\x00",
        "a'--",
        None,
        5,
        b"a",
        ["a"],
        'a"; DROP TABLE documents',
        "' OR 1=1 --",
        "a/b",
        "../a",
        "\uff41",
    ],
)
def test_f67_nothing_else_names_a_collection(name: object) -> None:
    with pytest.raises(CollectionNameError, match="can't name a collection: use 1 to 64"):
        check_collection(name)


# Ids


@pytest.mark.parametrize(
    "id_",
    [
        "1",
        " ",
        " a ",
        ".",
        "..",
        "a/b",
        "'; DROP TABLE documents; --",
        "é",
        "e\u0301",
        "日本",
        "😀",
        "a" * 255,
        "é" * 127,
        "😀" * 63,
        "\u202e",
        "\u2028",
        "\ufeff",
        "\uffff",
        "null",
        "[]",
    ],
)
def test_f66_any_other_text_can_be_an_id_and_is_never_normalised(id_: str) -> None:
    assert check_id(id_) is id_


@pytest.mark.parametrize("character", ["\x00", "\x1f", "\n", "\x7f", "\x80", "\x9f", "\ud800"])
def test_f66_control_characters_and_lone_surrogates_are_in_no_id(character: str) -> None:
    with pytest.raises(IdError, match=rf"U\+{ord(character):04X} at 1"):
        check_id(f"a{character}b")


@pytest.mark.parametrize("id_", ["a" * 256, "é" * 128, "😀" * 64])
def test_f66_an_id_has_at_most_255_bytes(id_: str) -> None:
    with pytest.raises(IdError, match="too long for an id: at most 255 bytes"):
        check_id(id_)


def test_f66_an_id_is_not_empty() -> None:
    with pytest.raises(IdError, match="can't be empty"):
        check_id("")


@pytest.mark.parametrize("id_", [None, 5, b"a", True, ["a"], HUGE])
def test_an_id_is_text(id_: object) -> None:
    with pytest.raises(IdError, match=r"^an id must be a str, not \w+: .*; use str\(\)$"):
        check_id(id_)


# Documents that can be stored


@pytest.mark.parametrize(
    "doc",
    [
        {},
        {"": ""},
        {"a": None, "b": True, "c": [1, 1.0, -0.0, "x", {}, []]},
        {"min": -(2**63), "max": 2**63 - 1, "js": 2**53 + 1},
        {"tiny": 5e-324, "huge": 1.7976931348623157e308, "f64": -1.1754943508222875e-38},
        {"nul": "\x00", "controls": "\x01\x1f\x7f\x9f", "sep": "\u2028\u2029\ufeff\uffff"},
        {
            "quotes": "\"\\/'",
            "emoji": "😀👩‍👩‍👧",
            "bidi": "\u202eabc",
            "nfd": "e\u0301",
            "nfc": "é",
        },
        {"__proto__": 1, "constructor": 2, "NaN": "Infinity", "\n": "\t"},
        {"order": 1, "10": 2, "9": 3},
    ],
)
def test_f64_what_is_stored_comes_back_equal_to_the_type(doc: dict[str, Any]) -> None:
    assert repr(json.loads(encode_document(doc))) == repr(doc)


def test_f64_enumerations_of_int_and_str_are_stored_as_what_they_are() -> None:
    doc = {"level": Level.HIGH, "colour": Colour.RED, Colour.RED: 1}
    assert json.loads(encode_document(doc)) == doc


def test_f65_a_document_has_at_most_1_mib_of_json_text() -> None:
    fits = {"a": "x" * (limits.MAX_DOC - len('{"a":""}'))}
    assert len(encode_document(fits)) == limits.MAX_DOC
    with pytest.raises(DocumentError, match="1048577 bytes of JSON, at most 1048576") as caught:
        encode_document({"a": fits["a"] + "x"})
    assert caught.value.code == "too_large"


def test_f65_the_size_is_counted_in_bytes_not_characters() -> None:
    with pytest.raises(DocumentError, match="is too large: 1048578 bytes"):
        encode_document({"a": "é" * ((limits.MAX_DOC - len('{"a":""}')) // 2 + 1)})


def test_f64_a_document_is_at_most_64_deep() -> None:
    assert json.loads(encode_document(nested(64))) == nested(64)
    reason = "is nested more than 64 deep; flatten the document"
    assert refusal(nested(65)) == f"at a{'[0]' * 63}: {reason}"


# Documents that can't


@pytest.mark.parametrize("doc", [None, [], "a", 1, [10**5000], (), HUGE])
def test_a_document_is_a_dict(doc: object) -> None:
    assert refusal(doc).startswith(f"the document must be a dict, not {type(doc).__name__}: ")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "nan is no JSON number; use None"),
        (float("inf"), "inf is no JSON number; use None"),
        (float("-inf"), "-inf is no JSON number; use None"),
        (2**63, "9223372036854775808 is beyond 64 bits; use a str"),
        (-(2**63) - 1, "-9223372036854775809 is beyond 64 bits; use a str"),
        pytest.param(10**5000, "an integer of 16610 bits is beyond 64 bits; use a str", id="huge"),
        ("a\ud800", r"'a\ud800' has a lone surrogate, which is not Unicode text"),
        ((1, 2), "(1, 2) is a tuple, which does not come back equal; use a list"),
        ((10**5000,), "a value of type tuple is a tuple, which does not come back equal; use a "),
        ({1}, "{1} is a set, which does not come back equal; use a list"),
        (b"x", "b'x' is a bytes, which does not come back equal; use text, such as base64"),
        (dt.date(2024, 2, 29), "datetime.date(2024, 2, 29) is a date, which does not come "),
        (decimal.Decimal("1.5"), "Decimal('1.5') is a Decimal, which does not come back equal; "),
        (uuid.UUID(int=0), "UUID('00000000-0000-0000-0000-000000000000') is a UUID, which does "),
        (Unshowable(), "a value of type Unshowable is a Unshowable, which does not come back "),
        (1j, "1j is a complex, which does not come back equal; store str, int, float, bool, None"),
        (b"x" * 99, f"b'{'x' * 55}... is a bytes, which does not come back equal; use text"),
    ],
)
def test_f64_what_would_not_come_back_equal_is_refused_with_its_path_and_reason(
    value: object, reason: str
) -> None:
    assert refusal({"a": [{"b c": value}]}).startswith(f"at a[0]['b c']: {reason}")


@pytest.mark.parametrize(
    ("doc", "message"),
    [
        ({1: "a", "1": "b"}, "the document has the key 1, a int; keys must be str"),
        ({"a": {None: 1}}, "at a: has the key None, a NoneType; keys must be str"),
        ({"a": {"b": {True: 1}}}, "at a.b: has the key True, a bool; keys must be str"),
        ({"a": {"\udfff": 1}}, r"at a: has the key '\udfff' with a lone surrogate, which is not "),
    ],
)
def test_f64_keys_are_text(doc: object, message: str) -> None:
    assert refusal(doc).startswith(message)


def test_a_document_that_holds_itself_is_refused() -> None:
    doc: dict[str, Any] = {}
    doc["self"] = doc
    assert "is nested more than 64 deep" in refusal(doc)


def test_a_few_lists_that_stand_for_billions_of_values_are_refused_at_once() -> None:
    value: list[Any] = [0] * 1000
    for _ in range(5):
        value = [value] * 1000
    assert refusal({"a": value}).endswith("has more than 1048576 values; split it")


# Documents that come as text


def test_the_text_of_a_document_is_kept_as_it_came() -> None:
    text = '{ "a" : [1.50, "\\u0041", 1] }'
    assert check_text(text, json.loads(text)) is text


@pytest.mark.parametrize("doc", [[], "a", None, 5, [10**5000], HUGE])
def test_the_text_of_anything_but_an_object_is_refused(doc: object) -> None:
    with pytest.raises(DocumentError, match="must be a JSON object, not"):
        check_text("ignored", doc)


def test_a_key_that_stands_twice_hides_nothing_from_later_readers() -> None:
    deep = f'{{"a":{"[" * 900 + "]" * 900},"a":1}}'
    assert check_text(deep, json.loads(deep)) == '{"a":1}'
    huge = f'{{"a":{2**70},"a":1}}'
    assert check_text(huge, json.loads(huge)) == '{"a":1}'


@pytest.mark.parametrize(
    "text", ['{"a":1e400}', '{"a":"\\uD800"}', f'{{"a":{2**63}}}', f'{{"a":{-(2**63) - 1}}}']
)
def test_f64_text_with_values_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        check_text(text, json.loads(text))


def test_text_too_deep_or_too_large_is_refused() -> None:
    deep = nested(65)
    with pytest.raises(DocumentError, match="nested more than 64 deep"):
        check_text(json.dumps(deep), deep)
    with pytest.raises(DocumentError, match="too large"):
        check_text('{"a":1}' + " " * limits.MAX_DOC, {"a": 1})
