"""A collection: documents by id, as an app sees them."""

from __future__ import annotations

import asyncio
import uuid
from random import Random
from typing import Any

import pytest

from tide import CollectionNameError, DocumentError, IdError, NotFoundError, Tide


@pytest.fixture
async def tide(tmp_path):
    async with Tide(tmp_path / "app.db", durability="relaxed") as tide:
        yield tide


@pytest.fixture
def todos(tide):
    return tide.collection("todos")


async def test_what_was_put_is_got_counted_and_listed(todos):
    await todos.put("t1", {"text": "bread"})
    assert await todos.get("t1") == {"text": "bread"}
    assert await todos.all() == {"t1": {"text": "bread"}}
    assert await todos.count() == 1


async def test_an_empty_collection_has_nothing(tide, todos):
    assert await todos.get("t1") is None
    assert await todos.all() == {}
    assert await todos.count() == 0
    assert await tide.collections() == []
    assert await tide.pending() == 0


async def test_the_empty_document_is_a_document(todos):
    await todos.put("t1", {})
    assert await todos.get("t1") == {}
    assert await todos.all() == {"t1": {}}
    assert await todos.count() == 1


async def test_put_replaces_the_whole_document(todos):
    await todos.put("t1", {"text": "bread", "done": False})
    await todos.put("t1", {"done": True})
    assert await todos.get("t1") == {"done": True}
    assert await todos.count() == 1


async def test_update_sets_top_level_keys_and_returns_the_whole_document(todos):
    await todos.put("t1", {"a": {"deep": 1}, "b": [1], "c": None})
    expected = {"a": {"other": 2}, "b": [1], "c": None, "d": 4}
    assert await todos.update("t1", {"a": {"other": 2}, "d": 4}) == expected
    assert await todos.get("t1") == expected


async def test_update_with_no_fields_returns_the_document(todos):
    await todos.put("t1", {"a": 1})
    assert await todos.update("t1", {}) == {"a": 1}


@pytest.mark.parametrize("deleted", [False, True])
async def test_update_of_nothing_says_to_put_and_makes_nothing(tide, todos, deleted):
    if deleted:
        await todos.put("t1", {"a": 1})
        await todos.delete("t1")
    before = await tide.pending()
    with pytest.raises(NotFoundError, match=r"no document 't1' in 'todos' to update; use put\(\)"):
        await todos.update("t1", {"a": 2})
    assert await todos.get("t1") is None
    assert await tide.pending() == before


async def test_an_update_too_large_together_changes_nothing(tide, todos):
    await todos.put("t1", {"a": "x" * 600_000})
    with pytest.raises(DocumentError, match="too large") as caught:
        await todos.update("t1", {"b": "x" * 600_000})
    assert caught.value.code == "too_large"
    assert list(await todos.get("t1") or ()) == ["a"]
    assert await tide.pending() == 1


async def test_delete_tells_whether_the_document_existed(todos):
    await todos.put("t1", {"a": 1})
    assert await todos.delete("t1") is True
    assert await todos.delete("t1") is False
    assert await todos.delete("t2") is False
    assert await todos.get("t1") is None
    assert await todos.count() == 0


async def test_deleting_nothing_leaves_nothing_to_push(tide, todos):
    assert await todos.delete("t1") is False
    assert await tide.pending() == 0


async def test_a_deleted_document_can_be_put_again(todos):
    await todos.put("t1", {"a": 1})
    await todos.delete("t1")
    await todos.put("t1", {"b": 2})
    assert await todos.get("t1") == {"b": 2}


async def test_the_outbox_holds_one_op_for_each_document_however_often_it_was_written(tide, todos):
    for number in range(5):
        await todos.put("t1", {"n": number})
    await todos.update("t1", {"n": 9})
    assert await tide.pending() == 1
    await todos.delete("t1")
    assert await tide.pending() == 1
    await todos.put("t2", {})
    assert await tide.pending() == 2


async def test_added_ids_are_uuids_of_version_7_in_the_order_of_adding(todos):
    ids = [await todos.add({"n": number}) for number in range(50)]
    assert ids == sorted(set(ids))
    assert list(await todos.all()) == ids
    assert {uuid.UUID(id_).version for id_ in ids} == {7}
    assert await todos.get(ids[7]) == {"n": 7}


async def test_f66_documents_are_ordered_by_the_bytes_of_their_ids(todos):
    ids = [
        "\uffff",
        "😀",
        "é",
        "e\u0301",
        "z",
        "Z",
        "a",
        "10",
        "9",
        " ",
        "~",
        "日本",
        "aa",
        "\ue000",
    ]
    for id_ in Random(5).sample(ids, len(ids)):
        await todos.put(id_, {"id": id_})
    stored = await todos.all()
    assert list(stored) == sorted(ids, key=str.encode)
    assert all(doc == {"id": id_} for id_, doc in stored.items())


async def test_collections_keep_to_themselves(tide):
    names = ["B", "a", "a.b", "b", "todos"]
    for name in reversed(names):
        await tide.collection(name).put("t1", {"in": name})
    for name in names:
        assert await tide.collection(name).all() == {"t1": {"in": name}}
    assert await tide.collections() == names


async def test_a_collection_whose_documents_are_all_deleted_is_none(tide, todos):
    await todos.put("t1", {})
    await tide.collection("notes").put("n1", {})
    await todos.delete("t1")
    assert await tide.collections() == ["notes"]


async def test_two_objects_of_one_collection_show_the_same(tide, todos):
    await todos.put("t1", {"a": 1})
    again = tide.collection("todos")
    assert await again.get("t1") == {"a": 1}
    assert again.name == "todos"
    assert repr(again) == "<Collection todos>"


async def test_200_puts_at_once_are_all_stored(tide, todos):
    await asyncio.gather(*(todos.put(f"t{n}", {"n": n}) for n in range(200)))
    assert await todos.all() == {f"t{n}": {"n": n} for n in range(200)}
    assert await tide.pending() == 200


async def test_200_updates_of_one_document_at_once_lose_nothing(todos):
    await todos.put("t1", {})
    docs = await asyncio.gather(*(todos.update("t1", {f"k{n}": n}) for n in range(200)))
    everything = {f"k{n}": n for n in range(200)}
    assert await todos.get("t1") == everything
    assert sorted(len(doc) for doc in docs) == list(range(1, 201))
    assert all(doc.items() <= everything.items() for doc in docs)


async def test_updates_and_deletes_at_once_happen_in_some_order(todos):
    await todos.put("t1", {"a": 1})
    writes = [
        todos.update("t1", {"b": 2}),
        todos.delete("t1"),
        todos.update("t1", {"c": 3}),
        todos.put("t1", {"d": 4}),
        todos.update("t1", {"e": 5}),
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert results[:2] == [{"a": 1, "b": 2}, True]
    assert isinstance(results[2], NotFoundError)
    assert results[3:] == [None, {"d": 4, "e": 5}]
    assert await todos.get("t1") == {"d": 4, "e": 5}


async def test_a_write_that_fails_does_not_touch_those_that_were_made_at_the_same_time(todos):
    results = await asyncio.gather(
        *(todos.put(f"t{n}", {"n": n}) for n in range(20)),
        todos.update("nothing here", {}),
        *(todos.put(f"t{n}", {"n": n}) for n in range(20, 40)),
        return_exceptions=True,
    )
    assert [type(result) for result in results if result is not None] == [NotFoundError]
    assert await todos.count() == 40


async def test_a_reader_sees_its_own_writes_at_once(todos):
    for number in range(50):
        await todos.put("t1", {"n": number})
        assert await todos.get("t1") == {"n": number}
        assert await todos.all() == {"t1": {"n": number}}


async def test_f69_changing_what_was_put_changes_nothing(todos):
    doc: dict[str, Any] = {"tags": ["a"], "deep": {"x": 1}}
    writing = asyncio.ensure_future(todos.put("t1", doc))
    await asyncio.sleep(0)  # it has begun, and is not done
    doc["tags"].append("b")
    doc["new"] = True
    await writing
    doc["deep"]["x"] = 2
    assert await todos.get("t1") == {"tags": ["a"], "deep": {"x": 1}}


async def test_f69_changing_the_fields_of_an_update_changes_nothing(todos):
    await todos.put("t1", {})
    fields = {"tags": ["a"]}
    updating = asyncio.ensure_future(todos.update("t1", fields))
    await asyncio.sleep(0)
    fields["tags"].append("b")
    updated = await updating
    assert updated == {"tags": ["a"]}
    updated["tags"].append("c")
    assert await todos.get("t1") == {"tags": ["a"]}


async def test_f69_changing_what_was_got_changes_nothing(todos):
    await todos.put("t1", {"tags": ["a"]})
    for got in (await todos.get("t1"), (await todos.all())["t1"]):
        got["tags"].append("b")
        got["new"] = True
    assert await todos.get("t1") == {"tags": ["a"]}
    assert await todos.all() == {"t1": {"tags": ["a"]}}


@pytest.mark.parametrize("n", range(3))
async def test_f60_a_cancelled_write_happens_whole_or_not_at_all_and_the_store_goes_on(todos, n):
    random = Random(n)
    writes = [asyncio.ensure_future(todos.put(f"t{i}", {"n": i})) for i in range(100)]
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)
    cancelled = random.sample(writes, 50)
    for write in cancelled:
        write.cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)
    stored = await todos.all()
    for number, result in enumerate(results):
        if result is None:
            assert stored[f"t{number}"] == {"n": number}
        else:
            assert isinstance(result, asyncio.CancelledError)
    await todos.put("after", {"n": -1})
    assert await todos.get("after") == {"n": -1}


@pytest.mark.parametrize(
    "id_", ["", "a\x00b", "a\nb", "\ud800", "a" * 256, "é" * 128, 5, None, b"a"]
)
@pytest.mark.parametrize("verb", ["put", "get", "update", "delete"])
async def test_f66_what_is_no_id_is_refused_by_every_verb(tide, todos, verb, id_):
    arguments = [id_, {}] if verb in ("put", "update") else [id_]
    with pytest.raises(IdError, match=r"can't be|must be a str|too long"):
        await getattr(todos, verb)(*arguments)
    assert await tide.pending() == 0


@pytest.mark.parametrize("name", ["", "1a", "a b", "a" * 65, "é", "todos\n", None, 5])
async def test_f67_what_is_no_collection_name_is_refused(tide, name):
    with pytest.raises(CollectionNameError, match="use 1 to 64 of A-Z a-z 0-9 _"):
        tide.collection(name)


@pytest.mark.parametrize("name", ["a", "A" * 64, "todos.2024_a-b"])
@pytest.mark.parametrize("id_", ["a", "a" * 255, "é" * 127, "😀" * 63, " a ", "..", "a/b", "{}"])
async def test_f66_names_and_ids_up_to_the_limits_are_stored(tide, name, id_):
    await tide.collection(name).put(id_, {"id": id_})
    assert await tide.collection(name).get(id_) == {"id": id_}
    assert await tide.collection(name).all() == {id_: {"id": id_}}


async def test_all_that_was_written_is_there_after_opening_again(tmp_path):
    async with Tide(tmp_path / "app.db") as tide:
        todos = tide.collection("todos")
        await todos.put("t1", {"a": 1})
        await todos.put("t2", {"a": 2})
        await todos.delete("t2")
    async with Tide(tmp_path / "app.db") as tide:
        assert await tide.collection("todos").all() == {"t1": {"a": 1}}
        assert await tide.pending() == 2
