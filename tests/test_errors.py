"""The errors themselves: one tree, and messages that say what to do."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

import tide
from tide import DocumentError, NotFoundError, SyncError, Tide, TideError, errors
from tide.protocol import Problem

CLASSES = {
    name: thing
    for name, thing in vars(errors).items()
    if inspect.isclass(thing) and issubclass(thing, TideError)
}


def drawn_tree():
    """Each class in the drawing of `tide.errors`, with what it stands below there."""
    parents: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)([A-Z]\w+Error)(?: \((\w+)\))?", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            parents[found[2]] = (path[depth - 1] if depth else None, found[3])
    return parents


def test_the_drawing_of_the_errors_is_true():
    drawn = drawn_tree()
    assert drawn.keys() == CLASSES.keys()
    for name, (parent, builtin) in drawn.items():
        bases = {base.__name__ for base in CLASSES[name].__bases__}
        assert bases == {parent or "Exception", builtin} - {None}


def test_every_error_is_listed_explained_and_importable_from_tide():
    assert sorted(CLASSES) == errors.__all__
    for name, kind in CLASSES.items():
        assert inspect.getdoc(kind), name
        assert "__doc__" in vars(kind), name
        assert name == "RequestError" or getattr(tide, name) is kind  # that is the server's


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        ("DocumentError", ValueError),
        ("IdError", ValueError),
        ("CollectionNameError", ValueError),
        ("EndpointError", ValueError),
        ("NotFoundError", KeyError),
        ("UsageError", RuntimeError),
        ("ForkedError", RuntimeError),
    ],
)
def test_errors_can_be_caught_as_the_builtin_ones_that_they_are(kind, builtin):
    assert issubclass(CLASSES[kind], builtin)


def an_error(name):
    """An error of each class, as it may be raised."""
    if name == "DocumentError":
        return DocumentError("tags[2]", "is odd; use a list", code="too_large")
    if name == "RequestError":
        return errors.RequestError(Problem(413, "too_large", "too much; send less"))
    error = CLASSES[name]("what happened")
    if isinstance(error, SyncError):
        error.retry_after = 7.0
    return error


def through_pickle(error):
    """What arrives elsewhere of *error*."""
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("again", [copy.copy, through_pickle])
def test_errors_can_cross_to_another_process(name, again):
    error = an_error(name)
    other = again(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_a_document_error_says_where_and_why():
    error = DocumentError("tags[2]", "5 is a set; use a list")
    assert str(error) == "at tags[2]: 5 is a set; use a list"
    assert (error.path, error.reason, error.code) == (
        "tags[2]",
        "5 is a set; use a list",
        "invalid_doc",
    )
    assert str(DocumentError("", "must be a dict")) == "the document must be a dict"


def test_a_not_found_error_shows_its_message_and_not_its_repr():
    assert str(NotFoundError("there is no document 't1'; use put()")) == (
        "there is no document 't1'; use put()"
    )


def test_a_sync_error_asks_for_no_delay_unless_told():
    assert SyncError("no").retry_after == 0.0
    assert SyncError("no", retry_after=3.0).retry_after == 3.0


OP = tide.RejectedOp(1, "c", "1", {}, "forbidden", "")
WRONG_USES = {
    "id": (lambda tide: tide.collection("c").put("", {}), "add() makes one for you"),
    "id type": (lambda tide: tide.collection("c").get(5), "must be a str, not int: 5"),
    "document": (lambda tide: tide.collection("c").put("1", []), "must be a dict, not list: []"),
    "value": (lambda tide: tide.collection("c").put("1", {"a": (1,)}), "use a list"),
    "fields": (lambda tide: tide.collection("c").update("1", None), "must be a dict, not NoneType"),
    "missing": (lambda tide: tide.collection("c").update("1", {}), "use put()"),
    "open": (lambda tide: tide.open(), "use one `async with` per Tide"),
    "endpoint": (lambda tide: tide.sync_once(), 'give it one: Tide("app.db", "https://'),
    "retry": (lambda tide: tide.retry(OP), "see rejected()"),
    "discard": (lambda tide: tide.discard(OP), "see rejected()"),
}


@pytest.mark.parametrize("use", sorted(WRONG_USES))
async def test_a_wrong_use_says_what_to_do_instead_and_writes_nothing(tmp_path, use):
    wrong, advice = WRONG_USES[use]
    async with Tide(tmp_path / "app.db") as store:
        with pytest.raises(TideError, match=re.escape(advice)):
            await wrong(store)
        assert await store.collections() == []
        assert await store.pending() == 0
