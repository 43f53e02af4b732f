"""`tide outbox`: what waits and what was refused, listed, written again, or let go of."""

from __future__ import annotations

import asyncio
import json

import pytest

import tide.cli
from tests.commands.stores import fill, held, refuse, untouched
from tests.commands.stores import tide as command
from tide import Tide


@pytest.fixture
def path(tmp_path):
    """A store of which the server refused three writes, and where two wait."""
    made = tmp_path / "app.db"
    refuse(made, {"todos": {"r1": {"n": 1}, "r2": {"n": 2}, "r3": {"n": 3}}})
    fill(made, {"todos": {"t1": {"text": "buy bread"}}})
    fill(made, {"notes": {"n1": {"text": "日本語"}}})
    return made


def outbox(path, *options):
    return tide.cli.main(["outbox", str(path), *options])


def listed(path, capsys):
    assert outbox(path, "--json") == 0
    return json.loads(capsys.readouterr().out)


def rejected_numbers(path, capsys):
    return [op["number"] for op in listed(path, capsys)["rejected"]]


def test_it_lists_what_waits_in_the_order_of_pushing_and_what_was_refused_and_why(path, capsys):
    assert outbox(path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pending: 2 ops"
    assert lines[1].split() == ["waits", "kind", "collection", "id", "document"]
    assert lines[2].split(maxsplit=5)[2:] == ["put", "todos", "t1", '{"text":"buy bread"}']
    assert lines[3].split(maxsplit=5)[2:] == ["put", "notes", "n1", '{"text":"日本語"}']
    assert lines[4] == "rejected: 3 ops"
    assert lines[6].split(maxsplit=5) == ["1", "put", "todos", "r1", "forbidden", "not in winter"]
    assert f"tide outbox {path} --retry N" in lines[-1]


def test_columns_stand_below_each_other_also_for_wide_characters(tmp_path, capsys):
    fill(tmp_path / "app.db", {"todos": {"日本": {"n": 1}, "e\u0301": {"n": 2}, "plain": {"n": 3}}})
    assert outbox(tmp_path / "app.db") == 0
    lines = capsys.readouterr().out.splitlines()[2:5]
    ids = {line.split("todos       ")[1].split("{")[0] for line in lines}
    assert ids == {"e\u0301      ", "plain  ", "日本   "}  # on a terminal, seven cells each


def test_for_scripts_it_lists_whole_documents(path, capsys):
    told = listed(path, capsys)
    assert [op.pop("written_at") > 0 for op in told["pending"]] == [True, True]
    assert told["pending"][0] == {
        "collection": "todos",
        "id": "t1",
        "kind": "put",
        "doc": {"text": "buy bread"},
    }
    assert told["rejected"][2] == {
        "number": 3,
        "collection": "todos",
        "id": "r3",
        "kind": "put",
        "doc": {"n": 3},
        "code": "forbidden",
        "detail": "not in winter",
    }


def test_an_empty_outbox_is_told_as_such(tmp_path, capsys):
    fill(tmp_path / "app.db", {})
    assert outbox(tmp_path / "app.db") == 0
    assert capsys.readouterr().out == "pending: 0 ops\nrejected: 0 ops\n"


def test_a_delete_that_waits_is_told(path, capsys):
    async def delete():
        async with Tide(path) as store:
            await store.collection("todos").delete("t1")

    asyncio.run(delete())
    assert [(op["kind"], op["doc"]) for op in listed(path, capsys)["pending"]][-1] == (
        "delete",
        None,
    )


def test_of_many_that_wait_it_shows_the_first_unless_asked_for_all(tmp_path, capsys):
    path = tmp_path / "app.db"
    fill(path, {"todos": {f"t{number:02}": {} for number in range(50)}})
    assert outbox(path) == 0
    told = capsys.readouterr().out
    assert "t19" in told
    assert "t20" not in told
    assert "and 30 more; --all lists them" in told
    assert outbox(path, "--all") == 0
    assert "t49" in capsys.readouterr().out


def test_listing_changes_nothing(path):
    before = untouched(path.parent)
    assert command("outbox", path).returncode == 0
    assert untouched(path.parent) == before


def test_retry_writes_ops_again_so_that_they_wait(path, capsys):
    assert "r2" not in held(path)["todos"]
    assert outbox(path, "--retry", "2", "1") == 0
    assert capsys.readouterr().out == "retried 2 ops\n"
    assert rejected_numbers(path, capsys) == [3]
    assert [op["id"] for op in listed(path, capsys)["pending"]] == ["t1", "n1", "r2", "r1"]
    assert held(path)["todos"]["r2"] == {"n": 2}


def test_discard_forgets_ops(path, capsys):
    assert outbox(path, "--discard", "2") == 0
    assert capsys.readouterr().out == "discarded 1 op\n"
    assert rejected_numbers(path, capsys) == [1, 3]
    assert len(listed(path, capsys)["pending"]) == 2


@pytest.mark.parametrize(("option", "waiting"), [("--retry-all", 5), ("--discard-all", 2)])
def test_all_of_them_at_once(path, capsys, option, waiting):
    assert outbox(path, option) == 0
    capsys.readouterr()
    assert rejected_numbers(path, capsys) == []
    assert len(listed(path, capsys)["pending"]) == waiting


@pytest.mark.parametrize("option", ["--retry-all", "--discard-all"])
def test_all_of_none_is_fine(tmp_path, capsys, option):
    fill(tmp_path / "app.db", {})
    assert outbox(tmp_path / "app.db", option) == 0
    assert "0 ops" in capsys.readouterr().out


def test_for_scripts_what_was_discarded_is_given_back(path, capsys):
    assert outbox(path, "--discard-all", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [op["doc"] for op in told["discarded"]] == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize("option", ["--retry", "--discard"])
def test_a_number_that_is_none_leaves_all_as_it_was(path, capsys, option):
    assert outbox(path, option, "1", "7") == 1
    assert capsys.readouterr().err == "tide outbox: there is no rejected op 7; nothing was done\n"
    assert rejected_numbers(path, capsys) == [1, 2, 3]


def test_a_number_given_twice_counts_once(path, capsys):
    assert outbox(path, "--retry", "1", "1") == 0
    assert capsys.readouterr().out == "retried 1 op\n"
    assert rejected_numbers(path, capsys) == [2, 3]


@pytest.mark.parametrize(
    "options", [["--retry", "x"], ["--retry"], ["--retry", "1", "--discard", "2"], ["--frob"]]
)
def test_options_that_make_no_sense_are_a_wrong_use(path, capsys, options):
    with pytest.raises(SystemExit) as caught:
        outbox(path, *options)
    assert caught.value.code == 2
    assert "usage: tide outbox" in capsys.readouterr().err


def test_a_running_program_sees_what_was_retried(path):
    async def run():
        async with Tide(path) as store:
            changes = store.collection("todos").watch()
            ran = await asyncio.to_thread(command, "outbox", path, "--retry", "1")
            assert ran.returncode == 0, ran.stderr
            change = await asyncio.wait_for(anext(changes), 30)
            return change.id, change.doc, [op.number for op in await store.rejected()]

    assert asyncio.run(run()) == ("r1", {"n": 1}, [2, 3])


def test_a_damaged_store_is_not_opened_and_so_not_set_aside(path, capsys):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    before = untouched(path.parent)
    assert outbox(path, "--retry-all") == 1
    assert "tide outbox: " in capsys.readouterr().err
    assert untouched(path.parent) == before
