"""What a LiveQuery hands out can't be changed, and can be used like any dict or list."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from tide import Tide

DOC = {"text": "tea", "tags": ["a", {"deep": [1, 2.5, None, True]}], "empty": {}, "none": []}

MUTATIONS = {
    "setitem": lambda doc: doc.__setitem__("x", 1),
    "delitem": lambda doc: doc.__delitem__("text"),
    "ior": lambda doc: doc.__ior__({"x": 1}),
    "clear": lambda doc: doc.clear(),
    "pop": lambda doc: doc.pop("text"),
    "pop with default": lambda doc: doc.pop("nothing", None),
    "popitem": lambda doc: doc.popitem(),
    "setdefault": lambda doc: doc.setdefault("x", 1),
    "update": lambda doc: doc.update(x=1),
    "list setitem": lambda doc: doc["tags"].__setitem__(0, 1),
    "list set slice": lambda doc: doc["tags"].__setitem__(slice(0, 1), []),
    "list delitem": lambda doc: doc["tags"].__delitem__(0),
    "list iadd": lambda doc: doc["tags"].__iadd__([1]),
    "list imul": lambda doc: doc["tags"].__imul__(2),
    "append": lambda doc: doc["tags"].append(1),
    "list clear": lambda doc: doc["tags"].clear(),
    "extend": lambda doc: doc["tags"].extend([1]),
    "insert": lambda doc: doc["tags"].insert(0, 1),
    "list pop": lambda doc: doc["tags"].pop(),
    "remove": lambda doc: doc["tags"].remove("a"),
    "reverse": lambda doc: doc["tags"].reverse(),
    "sort": lambda doc: doc["tags"].sort(key=str),
    "deep": lambda doc: doc["tags"][1]["deep"].append(3),
    "empty": lambda doc: doc["empty"].update(x=1),
    "empty list": lambda doc: doc["none"].append(1),
}


@pytest.fixture
async def todos(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        todos = tide.collection("todos")
        await todos.put("t1", DOC)
        yield todos


@pytest.fixture
async def query(todos):
    async with todos.live() as query:
        yield query


def test_every_way_to_change_a_dict_or_a_list_is_tried():
    """So that a new Python does not bring one that nobody thought of."""
    ways = {name.rpartition(" ")[2] for name in MUTATIONS}
    for kind in (dict, list):
        reading = {"copy", "fromkeys", "get", "items", "keys", "values", "count", "index"}
        public = {name for name in dir(kind) if not name.startswith("_")} - reading
        assert public <= ways
        in_place = {name for name in dir(kind) if name.startswith("__i")} - {"__init__", "__iter__"}
        assert {name.strip("_") for name in in_place} - {"init_subclass"} <= ways


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
async def test_f69_what_is_handed_out_cannot_be_changed(query, mutate):
    for doc in (query.items["t1"], query.get("t1")):
        with pytest.raises(TypeError, match=r"use put\(\) or update\(\) of the collection"):
            mutate(doc)
        assert doc == DOC


async def test_f69_neither_can_items_nor_what_where_key_and_diffs_see(todos, query):
    with pytest.raises(TypeError, match="shared document"):
        query.items["x"] = {}

    def spoil(doc):
        doc["text"] = "changed"
        return True

    spoiling = await todos.live(where=spoil)
    assert isinstance(spoiling.errors["t1"], TypeError)
    reader = aiter(query)
    diff = await anext(reader)
    with pytest.raises(TypeError, match="shared document"):
        diff.added[0].doc["text"] = "changed"


@pytest.mark.parametrize(
    "copied",
    [
        lambda doc: doc.copy(),
        copy.copy,
        copy.deepcopy,
        lambda doc: pickle.loads(pickle.dumps(doc)),
        lambda doc: json.loads(json.dumps(doc)),
    ],
    ids=["copy()", "copy.copy", "copy.deepcopy", "pickle", "json"],
)
async def test_copies_are_plain_and_their_own_to_any_depth(query, copied):
    mine = copied(query.items["t1"])
    assert mine == DOC
    assert type(mine) is dict
    mine["text"] = "milk"
    assert type(mine["tags"]) is list
    mine["tags"][1]["deep"].append(3)
    mine["empty"]["x"] = 1
    tags = copied(query.items["t1"]["tags"])
    assert type(tags) is list
    tags[1]["deep"].clear()
    items = copied(query.items)
    del items["t1"]["text"]
    assert query.items == {"t1": DOC}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_it_can_be_pickled_with_every_protocol(query, protocol):
    assert pickle.loads(pickle.dumps(query.items, protocol)) == {"t1": DOC}


async def test_it_can_be_put_and_used_like_any_dict(todos, query):
    doc = query.items["t1"]
    await todos.put("t2", doc)
    assert await todos.update("t2", {"more": doc["tags"]}) == {**DOC, "more": DOC["tags"]}
    await todos.put("t3", {**doc, "text": "milk"})
    await todos.put("t4", doc | {"text": "juice"})
    assert await todos.get("t2") == {**DOC, "more": DOC["tags"]}
    assert await todos.get("t4") == {**DOC, "text": "juice"}
    assert isinstance(doc, dict)
    assert isinstance(doc["tags"], list)
    assert repr(doc) == repr(DOC)
    assert sorted(doc) == sorted(DOC)
    assert [*doc["tags"], 1] == [*DOC["tags"], 1]
    assert json.dumps(doc) == json.dumps(DOC)


async def test_what_was_copied_at_put_does_not_follow_the_dict_that_was_put(todos, query):
    doc = {"tags": ["a"]}
    await todos.put("t2", doc)
    doc["tags"].append("b")
    assert query.items["t2"] == {"tags": ["a"]}
