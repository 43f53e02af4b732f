"""Both codecs, the pure one and the one at C speed, read and write the same."""

from __future__ import annotations

import contextlib
import importlib
import json
import runpy
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tide.codec
from tide.codec import dumps, pure, quote
from tide.errors import DocumentError
from tide.limits import MAX_DEPTH, encode_document

try:
    fast: ModuleType | None = importlib.import_module("tide.codec.fast")
except ImportError:
    fast = None

both = pytest.mark.parametrize(
    "codec",
    [
        pytest.param(pure, id="pure"),
        pytest.param(
            fast, id="fast", marks=pytest.mark.skipif(fast is None, reason="needs the extra fast")
        ),
    ],
)

NAUGHTY = [
    "",
    "undefined",
    "NULL",
    "1e400",
    "NaN",
    "-Infinity",
    "0x1F",
    "1/0",
    "\\",
    "\"'`",
    "\\u0000",
    "\x00",
    "\x01\x08\x0b\x1f\x7f",
    "\x80\x85\x9f",
    "\t\r\n",
    "\u2028\u2029",
    "\ufeff",
    "\ufffe\uffff",
    "Ω≈ç√∫µ≤≥÷",
    "田中さんにあげて下さい",
    "ﷺ",
    "٠١٢٣",
    "e\u0301 é",
    "👩‍👩‍👧‍👧 🇺🇳 0️⃣",
    "\U0001d4e3\U0001d4f1 \U0010ffff",
    "الكل في المجمو عة",
    "\u202eabc\u202c\u2066d\u2069",
    "Z̮̞̠͙͔ͅḀ̗̞͈̻̗Ḷ͙͎̯̹̞͓G̻O̭̗̮",
    "<script>alert(0)</script>",
    "'; DROP TABLE documents; --",
    "../../etc/passwd%00",
    "$(touch x) `touch y` {0} %s %n",
    "\U000e0001\U000e007f",
]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([-(2**63), 2**63 - 1, 2**53, 2**53 + 1, 2**62, -1, 10**18, 10**18 - 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(NAUGHTY)
)
KEYS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NAUGHTY)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)
FORMS: list[dict[str, Any]] = [{}, {"indent": 2}, {"ensure_ascii": False}]
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=8)


def request(doc: str, id_: str = '"1"') -> bytes:
    """A request's ops: one, of the JSON texts *doc* and *id_*."""
    return f'{{"ops":[{{"collection":"c","id":{id_},"doc":{doc},"stamp":[1,"a"]}}]}}'.encode()


def read_doc(codec: ModuleType, text: str) -> Any:
    """What *codec* makes of a document that stands in a request as *text*."""
    (op,) = codec.load_request(request(text))["ops"]
    return op.doc


def is_refused(codec: ModuleType, text: str) -> bool:
    """Whether *codec* takes no document from *text*: refuses it alone, or the whole message."""
    try:
        return isinstance(read_doc(codec, text), DocumentError)
    except ValueError:
        return True


@both
@settings(deadline=None)
@given(doc=DOCUMENTS)
def test_f64_every_document_that_can_be_stored_comes_back_equal_to_the_type(
    codec: ModuleType, doc: dict[str, Any]
) -> None:
    text = encode_document(doc)
    assert repr(codec.loads(text)) == repr(doc)
    assert repr(codec.loads(text.encode())) == repr(doc)


@both
@settings(deadline=None)
@given(doc=DOCUMENTS, form=st.sampled_from(FORMS))
def test_f64_every_document_comes_through_a_message_equal_to_the_type(
    codec: ModuleType, doc: dict[str, Any], form: dict[str, Any]
) -> None:
    text = json.dumps(doc, **form)
    stored = read_doc(codec, text)
    assert repr(codec.loads(stored)) == repr(doc)
    assert repr(pure.loads(stored)) == repr(doc)
    change = {"collection": "c", "id": "1", "doc": json.loads(stored), "stamp": [1, "a"]}
    (told,) = codec.load_response(dumps({"changes": [change]}).encode())["changes"]
    assert repr(codec.loads(told.doc)) == repr(doc)


@both
@pytest.mark.parametrize("text", NAUGHTY)
def test_f66_naughty_strings_come_through_as_ids_keys_and_values(
    codec: ModuleType, text: str
) -> None:
    doc = {text: [text, {text: text}]}
    (op,) = codec.load_request(request(encode_document(doc), quote(text)))["ops"]
    assert op.id == text
    assert codec.loads(op.doc) == doc


@both
@pytest.mark.parametrize(
    "text",
    [
        '{"a":1e400}',
        '{"a":-1.5E+999}',
        f'{{"a":{2**63}}}',
        f'{{"a":{-(2**63) - 1}}}',
        f'{{"a":[{"9" * 400}]}}',
        f'{{"a":{"[" * MAX_DEPTH}{"]" * MAX_DEPTH}}}',
        '{"a":' * 65 + "1" + "}" * 65,
        "[]",
        '"text"',
        "5",
        "true",
    ],
)
def test_f64_a_document_out_of_bounds_spoils_its_own_op_only(codec: ModuleType, text: str) -> None:
    good = '{"collection":"c","id":"2","doc":{},"stamp":[1,"a"]}'
    body = request(text)[:-2] + f",{good}]}}".encode()
    bad, fine = codec.load_request(body)["ops"]
    assert isinstance(bad.doc, DocumentError)
    assert fine.doc == "{}"


@both
def test_f64_a_document_too_deep_for_the_reader_itself_is_refused(codec: ModuleType) -> None:
    for depth in [*range(940, 1000), 100_000]:
        for text in (f'{{"a":{"[" * depth}{"]" * depth}}}', "[" * depth + "]" * depth):
            assert is_refused(codec, text)


@both
def test_a_document_that_is_missing_is_refused_and_null_is_a_delete(codec: ModuleType) -> None:
    (missing, null) = codec.load_request(b'{"ops":[{"id":"1"},{"id":"2","doc": null }]}')["ops"]
    assert isinstance(missing.doc, DocumentError)
    assert null.doc is None


@both
def test_the_last_of_two_equal_keys_counts(codec: ModuleType) -> None:
    assert codec.loads(read_doc(codec, '{"a":1,"a":2}')) == {"a": 2}


@both
def test_whatever_stands_in_an_ops_other_fields_is_handed_on(codec: ModuleType) -> None:
    (op,) = codec.load_request(b'{"ops":[{"collection":5,"id":[],"doc":{},"stamp":"x"}]}')["ops"]
    assert op == tide.codec.WireOp(5, [], "{}", "x")


@both
def test_unknown_fields_are_ignored_everywhere(codec: ModuleType) -> None:
    fields = codec.load_request(
        b'{"cursor":null,"z":[{}],"ops":[{"id":"1","doc":{"a":1},"z":{"y":1}}]}'
    )
    (op,) = fields["ops"]
    assert (op.id, op.doc, fields["cursor"]) == ("1", '{"a":1}', None)
    told = codec.load_response(b'{"z":1,"changes":[{"z":1}],"results":[{"z":1,"status":"ok"}]}')
    assert len(told["changes"]) == 1
    assert told["results"][0]["status"] == "ok"


@both
def test_what_is_not_there_is_not_among_the_fields(codec: ModuleType) -> None:
    assert codec.load_request(b"{}") == codec.load_response(b"{}") == {}


@both
def test_the_current_of_a_result_is_read_as_an_op(codec: ModuleType) -> None:
    body = b'{"results":[{"current":{"id":"1","doc":{"a":1}}},{"current":null},{}]}'
    first, second, third = codec.load_response(body)["results"]
    assert (first["current"].id, first["current"].doc) == ("1", '{"a":1}')
    assert second.get("current") is third.get("current") is None


@both
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'"a"',
        b"{",
        b"{} {}",
        b"{}x",
        b"{'a':1}",
        b'{"ops":[{]}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"\xff\xfe",
        b'{"node_id":"\xff"}',
        b"<html>",
        b'{"ops":NaN}',
        b'{"ops":[{"doc":{"a":NaN}}]}',
        b'{"ops":[{"doc":{"a":-Infinity}}]}',
        b'{"ops":null}',
        b'{"ops":{}}',
        b'{"ops":[1]}',
        b'{"ops":[null]}',
        b'{"ops":[[]]}',
        b'{"ops":[{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        b'{"ops":01}',
        b'{"v":1.}',
    ],
)
def test_f38_what_is_not_a_request_is_a_value_error(codec: ModuleType, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.load_request(body)


@both
@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'{"changes":null}',
        b'{"changes":{}}',
        b'{"changes":[1]}',
        b"{'a':1}",
        b'{"results":false}',
        b'{"results":0}',
        b'{"results":""}',
        b'{"results":{}}',
        b'{"results":[1]}',
        b'{"results":[null]}',
        b'{"results":[{"current":1}]}',
    ],
)
def test_f38_what_is_not_a_response_is_a_value_error(codec: ModuleType, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.load_response(body)


@both
@settings(deadline=None)
@given(body=st.binary(max_size=40) | st.text(st.sampled_from('{}[]",:1ea\\ud8 ')).map(str.encode))
def test_any_bytes_are_read_or_refused_with_a_value_error(codec: ModuleType, body: bytes) -> None:
    for load in (codec.load_request, codec.load_response, codec.loads):
        with contextlib.suppress(ValueError):
            load(body)


@both
def test_f64_lone_surrogates_never_come_through(codec: ModuleType) -> None:
    for text in (r'{"a":"\ud800"}', r'{"\udfff":1}', r'{"a":["\ud800\ud800"]}'):
        assert is_refused(codec, text)
    assert codec.loads(read_doc(codec, r'{"a":"\ud83d\ude00"}')) == {"a": "😀"}


def test_text_with_a_lone_surrogate_is_not_json_for_the_fast_codec() -> None:
    codec = pytest.importorskip("tide.codec.fast")
    with pytest.raises(ValueError, match="surrogates"):
        codec.loads('"\ud800"')


def test_invalid_utf_8_inside_a_document_spoils_its_own_op_only() -> None:
    codec = pytest.importorskip("tide.codec.fast")
    (op,) = codec.load_request(b'{"ops":[{"doc":{"a":"\xff"}}]}')["ops"]
    assert isinstance(op.doc, DocumentError)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NAUGHTY))
def test_a_quoted_string_reads_as_itself(text: str) -> None:
    assert json.loads(quote(text)) == json.loads(dumps(text)) == text


def test_f64_nothing_but_json_is_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(float("nan"))


def test_the_fast_codec_is_used_if_msgspec_is_installed() -> None:
    pytest.importorskip("msgspec")
    assert tide.codec.loads is importlib.import_module("tide.codec.fast").loads


def test_the_pure_codec_is_used_if_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tide.codec, "fast", raising=False)
    monkeypatch.setitem(sys.modules, "tide.codec.fast", None)
    assert tide.codec.__file__
    assert runpy.run_path(tide.codec.__file__)["loads"] is pure.loads
