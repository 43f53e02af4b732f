"""Documents at the edges: what comes back equal, and what is refused, through the whole store."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import re
import sqlite3
import types
import unicodedata
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tide.batch
import tide.change
import tide.collection
import tide.store
from tide import CollectionNameError, DocumentError, IdError, Tide
from tide.codec import fast, pure
from tide.testing import memory_server

MIB = 1 << 20
EACH_EXAMPLE_IN_ONE_STORE = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True
)


@pytest.fixture
async def store(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as store:
        yield store


@pytest.fixture
def things(store):
    return store.collection("things")


@pytest.fixture(params=[pure, fast], ids=["pure", "fast"])
def codec(request, monkeypatch):
    """Read with one codec, whichever is installed."""
    for module in (tide.batch, tide.change, tide.collection, tide.store):
        monkeypatch.setattr(module, "loads", request.param.loads)


async def round_trip(store, doc):
    """*doc* as each way of reading gives it; `repr` tells 1 from True and 1.0, and key orders."""
    things = store.collection("things")
    watcher = things.watch()
    await things.put("t1", doc)
    async with store.batch():
        await things.put("t2", doc)
        views = [await things.get("t2"), (await things.all())["t2"]]
    await things.put("t3", {})
    views += [await things.update("t3", doc), (await anext(watcher)).doc]
    views += [await things.get("t1"), (await things.all())["t1"], await things.get("t2")]
    watcher.close()
    return views


async def assert_comes_back(store, doc):
    for view in await round_trip(store, doc):
        assert repr(view) == repr(doc)


def nested(depth, innermost: Any = 1):
    """A document of *depth* objects and arrays."""
    value: Any = innermost
    for level in range(depth - 1):
        value = [value] if level % 2 else {"b": value}
    return {"a": value}


def sized(size, character="x"):
    """A document whose JSON text has *size* bytes."""
    room = size - len('{"a":""}')
    each = len(character.encode())
    return {"a": character * (room // each) + "x" * (room % each)}


# What comes back equal

NAUGHTY = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x01\x1f\x7f\x80\x9f",
    "\t\n\r\v\f\b",
    "\\",
    '"',
    "\\u0000",
    "\\ud800",
    "\\\\\"'`",
    "/* */ -- #",
    "null",
    "NaN",
    "Infinity",
    "true",
    "1e400",
    "0x0",
    "1_000",
    "undefined",
    "__proto__",
    "constructor",
    "é",
    "e\u0301",
    "Å\u212b",
    "ﬁ",
    "İıſK",
    "ßẞ",
    "日本語",
    "한국어",
    "नमस्ते",
    "עברית mixed عربي",
    "\u202ertl\u202c",
    "\u2066isolate\u2069",
    "Z̮̞̠͙͔ͅḀ̗̞͈̻̗Ḷ͙͎̯̹̞͓G̻O̭̗̮",
    "\u200b\u200c\u200d\u2060",
    "\ufeffbom",
    "\ufffe\uffff",
    "\u2028\u2029\x85",
    "\u00a0\u3000",
    "\ufffd",
    "😀",
    "👩‍👩‍👧‍👦",
    "👍🏿",
    "🇪🇺",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "✍️",
    "𝒳𐍈",
    "\U0010ffff",
    "'; DROP TABLE documents; --",
    '"; DROP TABLE outbox; --',
    "' OR '1'='1",
    "1; DELETE FROM documents",
    "') UNION SELECT device FROM node --",
    "%s %d {} {0} %(a)s",
    "$1 ?1 :a @a",
    "*%_[]^",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "]]> <!-- &amp;",
    "[bold]markup[/]",
    "x" * 10_000,
]
IDS = [
    text
    for text in NAUGHTY
    if text
    and len(text) < 256
    and not set(text) & set(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
]


async def test_f64_naughty_strings_come_back_as_values_and_as_keys(store, codec):
    for text in NAUGHTY:
        await assert_comes_back(store, {"v": text, text: [text, {text: text}], "w": {"": text}})


async def test_f66_naughty_strings_are_ids_like_any_other(store, things):
    await things.put("other", {})
    for id_ in IDS:
        watcher = things.watch(id_)
        await things.put(id_, {"id": id_})
        assert await things.get(id_) == {"id": id_}
        assert await things.all() == {"other": {}, id_: {"id": id_}}
        assert (await anext(watcher)).id == id_
        assert await things.update(id_, {"more": 1}) == {"id": id_, "more": 1}
        assert await things.delete(id_) is True
    assert await things.all() == {"other": {}}


async def test_f66_ids_that_look_alike_are_not_the_same(store, things, tmp_path):
    ids = [
        "é",
        "e\u0301",
        "Å",
        "\u212b",
        "A",
        "a",
        "А",
        "K",
        "\u212a",
        "1",
        "１",
        " a",
        "a ",
        "ﬁ",
        "fi",
    ]
    assert len({unicodedata.normalize("NFKC", id_).strip().lower() for id_ in ids}) < len(ids)
    for id_ in ids:
        await things.put(id_, {"id": id_})
    assert await things.count() == len(ids)
    async with (
        memory_server(tmp_path / "server.db") as server,
        Tide(tmp_path / "app.db", transport=server.transport()) as here,
        Tide(tmp_path / "other.db", transport=server.transport()) as there,
    ):
        await here.sync_once()
        await there.sync_once()
        assert await there.collection("things").all() == {id_: {"id": id_} for id_ in ids}


async def test_f67_naughty_strings_name_no_collection_and_break_nothing(store, things, tmp_path):
    def schema():
        with sqlite3.connect(tmp_path / "app.db") as sql:
            rows = sql.execute("SELECT * FROM sqlite_master ORDER BY name").fetchall()
        sql.close()
        return rows

    before = schema()
    names = [text for text in NAUGHTY if not re.fullmatch("[A-Za-z]+", text)]
    assert len(names) > 50
    for name in names:
        with pytest.raises(CollectionNameError, match="can't name a collection"):
            store.collection(name)
        await things.put("t1", {name: name})
    assert schema() == before
    assert await store.collections() == ["things"]


class Level(enum.IntEnum):
    HIGH = 5


class Colour(str, enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        *(2**63 - 1, -(2**63), 2**53, 2**53 + 1, -(2**53) - 1, 10**18, 0),
        *(0.0, -0.0, 0.1, 1.0, 1e16, 1e22, 1e-7, 5e-324, 2.2250738585072014e-308),
        *(1.7976931348623157e308, -1.1754943508222875e-38, 3.141592653589793, 123456789012345680.0),
        *(True, False, None, "", [], {}, [[]], [{}], [None], {"": ""}, [1, 1.0, True]),
    ],
    ids=repr,
)
async def test_f64_values_at_the_edges_come_back_exactly(store, codec, value):
    await assert_comes_back(store, {"v": value, "list": [value], "deep": {"v": value}})


@pytest.mark.parametrize(
    "value",
    [
        Level.HIGH,
        Colour.RED,
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
    ],
    ids=repr,
)
async def test_kinds_of_the_json_types_come_back_equal(store, value):
    for view in await round_trip(store, {"v": value}):
        assert view == {"v": value}


async def test_the_order_of_keys_is_kept(store, codec):
    await assert_comes_back(store, {"z": 1, "a": 2, "10": 3, "9": 4, "é": {"b": 1, "a": 2}})


async def test_one_list_at_two_places_is_stored_twice(store):
    shared = [1]
    doc = {"a": shared, "b": [shared, shared]}
    await assert_comes_back(store, doc)


async def test_f64_64_levels_are_not_too_deep(store, codec):
    await assert_comes_back(store, nested(64))
    await assert_comes_back(store, nested(63, innermost=[]))


@pytest.mark.parametrize("character", ["x", "é", "日", "😀"])
@pytest.mark.parametrize("size", [MIB - 1, MIB])
async def test_f65_a_mib_is_not_too_large(store, things, character, size):
    doc = sized(size, character)
    await things.put("t1", doc)
    assert await things.get("t1") == doc


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(NAUGHTY[:-1]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)
DOCUMENTS = st.dictionaries(st.text() | st.sampled_from(NAUGHTY[:-1]), JSON, max_size=8)


@EACH_EXAMPLE_IN_ONE_STORE
@given(doc=DOCUMENTS)
async def test_f64_any_json_document_comes_back_exactly(store, codec, doc):
    await assert_comes_back(store, doc)


@settings(EACH_EXAMPLE_IN_ONE_STORE, max_examples=10)
@given(docs=st.lists(DOCUMENTS, min_size=1, max_size=8))
async def test_f64_any_json_document_reaches_another_node_exactly(tmp_path_factory, docs):
    path = tmp_path_factory.mktemp("nodes")
    async with (
        memory_server(path / "server.db") as server,
        Tide(path / "a.db", transport=server.transport(), durability="relaxed") as here,
        Tide(path / "b.db", transport=server.transport(), durability="relaxed") as there,
    ):
        async with here.batch():
            for number, doc in enumerate(docs):
                await here.collection("things").put(f"{number}", doc)
        await here.sync_once()
        await there.sync_once()
        arrived = await there.collection("things").all()
        assert repr(arrived) == repr({f"{number}": doc for number, doc in enumerate(docs)})


@EACH_EXAMPLE_IN_ONE_STORE
@given(id_=st.text(max_size=300))
async def test_f66_any_text_is_an_id_that_comes_back_or_is_refused(store, things, id_):
    before = await store.pending()
    fits = 0 < len(id_.encode()) <= 255
    if fits and not any(unicodedata.category(character) == "Cc" for character in id_):
        await things.put(id_, {"id": id_})
        assert (await things.all())[id_] == {"id": id_}
    else:
        with pytest.raises(IdError):
            await things.put(id_, {"id": id_})
        assert await store.pending() == before


# What is refused

CYCLE: dict[str, Any] = {}
CYCLE["me"] = CYCLE
LOOP: list[Any] = []
LOOP.append(LOOP)
LAUGHS: Any = "ha"
for _ in range(40):  # 2 ** 40 values in a few lists
    LAUGHS = [LAUGHS, LAUGHS]

REFUSED = {
    "nan": ({"a": [0, float("nan")]}, "a[1]", "nan is no JSON number; use None"),
    "inf": ({"a": {"b": float("inf")}}, "a.b", "inf is no JSON number; use None"),
    "-inf": ({"a b": float("-inf")}, "['a b']", "-inf is no JSON number; use None"),
    "int key": ({"a": {1: 2, "1": 3}}, "a", "has the key 1, a int; keys must be str"),
    "none key": ({None: 2}, "", "has the key None, a NoneType; keys must be str"),
    "bool key": ({True: 2}, "", "has the key True, a bool; keys must be str"),
    "tuple key": ({(1, 2): 2}, "", "keys must be str"),
    "bytes key": ({b"a": 2}, "", "keys must be str"),
    "bytes": ({"a": b"x"}, "a", "use text, such as base64"),
    "bytearray": ({"a": bytearray(b"x")}, "a", "use text, such as base64"),
    "datetime": ({"a": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)}, "a", "use .isoformat()"),
    "date": ({"a": [dt.date(2024, 1, 1)]}, "a[0]", "use .isoformat()"),
    "set": ({"a": {1}}, "a", "use a list"),
    "frozenset": ({"a": frozenset()}, "a", "use a list"),
    "tuple": ({"a": [[("x",)]]}, "a[0][0]", "use a list"),
    "namedtuple": ({"a": sqlite3.sqlite_version_info}, "a", "use a list"),
    "decimal": ({"a": decimal.Decimal("1.1")}, "a", "use str()"),
    "uuid": ({"a": uuid.UUID(int=1)}, "a", "use str()"),
    "object": ({"a": object()}, "a", "store str, int, float, bool, None, list and dict"),
    "proxy": ({"a": types.MappingProxyType({})}, "a", "store str, int, float, bool, None, list"),
    "ellipsis": ({"a": ...}, "a", "does not come back equal"),
    "surrogate": ({"a": "x\ud800"}, "a", "a lone surrogate, which is not Unicode text"),
    "low surrogate": ({"a": ["\udfff"]}, "a[0]", "a lone surrogate, which is not Unicode text"),
    "surrogate halves": ({"a": "\ud83d\ude00"}, "a", "a lone surrogate"),
    "surrogate key": (
        {"a": {"\ud800": 1}},
        "a",
        "with a lone surrogate, which is not Unicode text",
    ),
    "2**63": ({"a": 2**63}, "a", "9223372036854775808 is beyond 64 bits; use a str"),
    "-2**63-1": ({"a": -(2**63) - 1}, "a", "-9223372036854775809 is beyond 64 bits; use a str"),
    "5000 digits": ({"a": 10**5000}, "a", "an integer of 16610 bits is beyond 64 bits; use a str"),
    "65 levels": (nested(65), None, "is nested more than 64 deep; flatten the document"),
    "65 levels, empty": (nested(64, []), None, "is nested more than 64 deep; flatten the document"),
    "10,000 levels": (nested(10_000), None, "is nested more than 64 deep; flatten the document"),
    "cycle": (CYCLE, ".".join(["me"] * 64), "is nested more than 64 deep; flatten the document"),
    "loop": ({"a": LOOP}, "a" + "[0]" * 63, "is nested more than 64 deep; flatten the document"),
    "no dict": ([1], "", "must be a dict, not list: [1]"),
    "none": (None, "", "must be a dict, not NoneType: None"),
    "text": ("{}", "", "must be a dict, not str: '{}'"),
}
TOO_LARGE = {
    "1 MiB + 1": (sized(MIB + 1), f"is too large: {MIB + 1} bytes of JSON, at most {MIB}"),
    "1 MiB + 1 of é": (sized(MIB + 1, "é"), f"is too large: {MIB + 1} bytes of JSON"),
    "1 MiB + 1 of 😀": (sized(MIB + 1, "😀"), "is too large"),
    "escapes": ({"a": "\x00" * (MIB // 6 + 1)}, "is too large"),
    "10 MiB": (sized(10 * MIB), "keep blobs elsewhere"),
    "laughs": ({"a": LAUGHS}, "split it"),
    "long list": ({"a": [0] * (MIB + 1)}, "split it"),
}


async def put_in_batch(store, doc):
    async with store.batch():
        await store.collection("things").put("t1", doc)


WAYS = {
    "put": lambda store, doc: store.collection("things").put("t1", doc),
    "add": lambda store, doc: store.collection("things").add(doc),
    "update": lambda store, doc: store.collection("things").update("t1", doc),
    "batch": put_in_batch,
}


async def refusal(store, way, doc):
    """The error with which *doc* is refused; checks that it changed nothing."""
    things = store.collection("things")
    await things.put("t1", {"was": "here"})
    await things.put("t2", {})
    watcher = things.watch()
    with pytest.raises(DocumentError) as caught:
        await WAYS[way](store, doc)
    assert await things.all() == {"t1": {"was": "here"}, "t2": {}}
    assert await store.pending() == 2
    await things.put("t3", {})
    assert (await anext(watcher)).id == "t3"
    return caught.value


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("what", sorted(REFUSED))
async def test_f64_f68_what_would_not_come_back_is_refused_with_path_and_reason(store, what, way):
    doc, path, reason = REFUSED[what]
    error = await refusal(store, way, doc)
    assert reason in error.reason
    assert error.code == "invalid_doc"
    if path is not None:
        assert error.path == path
    assert error.path in str(error)
    assert error.reason in str(error)
    assert len(error.reason) < 200


@pytest.mark.parametrize("way", ["put", "update"])
@pytest.mark.parametrize("what", sorted(TOO_LARGE))
async def test_f65_what_is_too_large_is_refused(store, what, way):
    doc, reason = TOO_LARGE[what]
    error = await refusal(store, way, doc)
    assert reason in error.reason
    assert error.code == "too_large"
    assert len(str(error)) < 200


async def test_f64_the_path_of_what_is_too_deep_leads_there(store):
    error = await refusal(store, "put", {"x": 1, "list": [0, nested(64)]})
    assert error.path.startswith("list[1].a")
    assert error.path.count(".") + error.path.count("[") == 63  # and the first step has none


@EACH_EXAMPLE_IN_ONE_STORE
@given(doc=DOCUMENTS, key=st.text(max_size=5), wrong=st.sampled_from([1j, (), {1}, b"", 2**64]))
async def test_f68_a_value_that_cannot_be_stored_is_found_wherever_it_is(
    store, things, doc, key, wrong
):
    await things.put("t1", {"was": "here"})
    with pytest.raises(DocumentError) as caught:
        await things.put("t1", {**doc, "deep": [doc, {**doc, key: [doc, wrong]}]})
    assert caught.value.path.startswith("deep[1]")
    assert caught.value.path.endswith("[1]")
    assert await things.all() == {"t1": {"was": "here"}}
    assert await store.pending() == 1
