"""`tide export` and `tide import`: real data out and in again, equal, or a reason why not."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tide.cli
from tests.commands.stores import BUFFERED, COMMAND, Documents, fill, held, untouched
from tests.commands.stores import tide as command
from tide import Tide
from tide.commands.progress import Progress
from tide.limits import MAX_DOC

DOCUMENTS: Documents = {
    "todos": {
        "t1": {"text": "buy bread", "done": False, "n": 2**53 + 1, "x": -1.5e-300},
        "Zürich \U0001f6b2": {"日本": ["\u2028", "\x9b", '\\"\n\t', {"deep": [[[None]]]}]},
    },
    "notes": {"n1": {"a": {}}, "n2": {"": ""}},
}


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "app.db"
    fill(made, DOCUMENTS)
    return made


def lines_of(text):
    return [json.loads(line) for line in text.split("\n") if line]


def line(id_, doc, collection="todos"):
    return json.dumps({"collection": collection, "id": id_, "doc": doc}) + "\n"


def test_what_is_exported_and_imported_is_equal(path, tmp_path):
    exported = command("export", path)
    assert (exported.returncode, exported.stderr) == (0, "")
    imported = command("import", tmp_path / "new.db", "-", "--create", stdin=exported.stdout)
    assert imported.returncode == 0, imported.stderr
    assert "imported 4 documents into" in imported.stderr
    assert held(tmp_path / "new.db") == DOCUMENTS
    assert command("export", tmp_path / "new.db").stdout == exported.stdout


def test_a_document_is_a_line_by_collection_and_id(path):
    told = lines_of(command("export", path).stdout)
    assert [(one["collection"], one["id"]) for one in told] == [
        ("notes", "n1"),
        ("notes", "n2"),
        ("todos", "Zürich \U0001f6b2"),
        ("todos", "t1"),
    ]
    assert told[3] == {"collection": "todos", "id": "t1", "doc": DOCUMENTS["todos"]["t1"]}


def test_only_the_collections_that_are_named(path, capfdbinary):
    assert tide.cli.main(["export", str(path), "notes"]) == 0
    told = lines_of(capfdbinary.readouterr().out.decode())
    assert [one["id"] for one in told] == ["n1", "n2"]


def test_a_collection_that_is_not_there_is_told_with_those_that_are(path, capsys):
    assert tide.cli.main(["export", str(path), "notes", "todo"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"tide export: {path} has no documents in todo; it holds notes, todos\n"


def test_deleted_documents_are_not_exported(path, tmp_path):
    async def delete():
        async with Tide(path) as store:
            await store.collection("notes").delete("n1")
            await store.collection("notes").delete("n2")

    asyncio.run(delete())
    target = tmp_path / "out.jsonl"
    assert tide.cli.main(["export", str(path), "-o", str(target)]) == 0
    assert {one["collection"] for one in lines_of(target.read_text("utf-8"))} == {"todos"}


def test_exporting_to_a_file_says_so_and_changes_nothing_else(path, capsys):
    target = path.with_name("out.jsonl")
    target.write_text("what was there before", "utf-8")
    before = untouched(path.parent)
    assert tide.cli.main(["export", str(path), "--output", str(target)]) == 0
    assert capsys.readouterr() == ("", f"exported 4 documents to {target}\n")
    after = untouched(path.parent)
    assert len(lines_of(after.pop("out.jsonl").decode())) == 4
    before.pop("out.jsonl")
    assert after == before


async def test_it_exports_what_a_running_program_has_just_written(path):
    async with Tide(path) as store:
        await store.collection("todos").put("t9", {})
        ran = await asyncio.to_thread(command, "export", path, "todos")
    assert '"t9"' in ran.stdout


@pytest.mark.parametrize("name", ["app.db", "app.db-wal", "app.db-shm", "other.db"])
def test_an_export_never_takes_the_place_of_a_database(path, capsys, name):
    fill(path.with_name("other.db"), {})
    before = untouched(path.parent)
    assert tide.cli.main(["export", str(path), "-o", str(path.with_name(name))]) == 1
    assert "belongs to a database" in capsys.readouterr().err
    assert untouched(path.parent) == before


def test_an_export_that_fails_leaves_what_was_there(path, capsys):
    fill(path, {"todos": {f"t{n}": {"text": "word " * 50} for n in range(500)}})
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(whole[:half] + b"\xa5" * (len(whole) - half))
    target = path.with_name("out.jsonl")
    target.write_text("what was there before", "utf-8")
    before = untouched(path.parent)
    assert tide.cli.main(["export", str(path), "-o", str(target)]) == 1
    assert "tide export: " in capsys.readouterr().err
    assert untouched(path.parent) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_told_in_one_sentence(path):
    ran = command("export", path, "-o", "/dev/full")
    assert ran.returncode == 1
    assert ran.stderr.startswith("tide export: ")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", ["export", "outbox --all", "outbox --json"])
def test_a_reader_that_leaves_ends_it_quietly(path, arguments):
    fill(path, {"todos": {f"t{n}": {"text": "word " * 50} for n in range(2000)}})
    with subprocess.Popen(
        [*COMMAND, *arguments.split(), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=BUFFERED,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.readline()
        program.stdout.close()
        assert program.wait(30) == 141
        assert program.stderr.read() == b""


def test_imported_documents_replace_those_there_are_and_wait_for_the_server(path, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text(line("t1", {"new": 1}) + line("t2", {}) + "\n  \n" + line("t2", {"last": 1}))
    assert tide.cli.main(["import", str(path), str(lines)]) == 0
    assert held(path)["todos"]["t1"] == {"new": 1}
    assert held(path)["todos"]["t2"] == {"last": 1}
    assert held(path)["notes"] == DOCUMENTS["notes"]


async def test_a_running_program_is_told_of_what_is_imported(path, tmp_path):
    (tmp_path / "lines.jsonl").write_text(line("t1", {"new": 1}))
    async with Tide(path) as store:
        changes = store.collection("todos").watch()
        ran = await asyncio.to_thread(command, "import", path, tmp_path / "lines.jsonl")
        assert ran.returncode == 0, ran.stderr
        change = await asyncio.wait_for(anext(changes), 30)
    assert (change.id, change.doc) == ("t1", {"new": 1})


BAD = {
    "no JSON": "oops\n",
    "no JSON: 'utf": '{"collection":"todos","id":"\udcff","doc":{}}\n',
    "an object with": "[1]\n",
    'with "collection", "id" and "doc", no more': '{"collection":"todos","id":"x"}\n',
    "no more": '{"collection":"todos","id":"x","doc":{},"docs":{}}\n',
    "can't name a collection": line("x", {}, "1st"),
    "an id must be a str": line(7, {}),
    "control characters": line("a\nb", {}),
    "the document must be a dict, not list": line("x", [1]),
    "is beyond 64 bits": line("x", {"n": 2**70}),
    "is too large": line("x", {"text": "x" * MAX_DOC}),
    "it is longer than": line("x", {"text": "x" * 9 * MAX_DOC}),
    "nested more than 64 deep": line("x", {}).replace("{}", '{"a":' + "[" * 99 + "]" * 99 + "}"),
    "no JSON: deep": line("x", {}).replace("{}", '{"a":' + "[" * 5000 + "]" * 5000 + "}"),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_line_is_told_with_its_number_and_nothing_is_imported(path, capsys, why):
    lines = path.with_name("lines.jsonl")
    text = line("good", {}) + "\n" + BAD[why] + line("better", {})
    lines.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = untouched(path.parent)
    assert tide.cli.main(["import", str(path), str(lines)]) == 1
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert out == ""
    assert first.startswith("line 3: ")
    assert why.split(": ")[0] in first
    assert len(first) < 400
    assert last == "tide import: nothing was imported, for 1 bad line"
    assert untouched(path.parent) == before


def test_the_good_lines_of_a_bad_file_are_imported_on_request(path, capsys):
    lines = path.with_name("lines.jsonl")
    lines.write_text(line("good", {}) + "oops\n" * 12 + BAD["it is longer than"] + line("last", {}))
    assert tide.cli.main(["import", str(path), str(lines), "--skip-bad"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert [one.split(":")[0] for one in told[:10]] == [f"line {n}" for n in range(2, 12)]
    assert told[10] == "and 3 more"
    assert told[11] == f"imported 2 documents into {path}, skipped 13 bad lines"
    assert {"good", "last"} <= held(path)["todos"].keys()


def test_a_file_from_an_editor_that_marks_utf_8_and_ends_lines_its_own_way_is_fine(path):
    lines = path.with_name("lines.jsonl")
    lines.write_bytes(b"\xef\xbb\xbf" + line("a", {}).encode().replace(b"\n", b"\r\n"))
    with lines.open("ab") as file:
        file.write(line("b", {}).encode().rstrip())
    assert tide.cli.main(["import", str(path), str(lines)]) == 0
    assert {"a", "b"} <= held(path)["todos"].keys()


def test_more_than_one_batch(path):
    text = "".join(line(f"i{n}", {"n": n}) for n in range(1234))
    ran = command("import", path, "-", stdin=text)
    assert ran.returncode == 0
    todos = held(path)["todos"]
    assert [todos[f"i{n}"] for n in range(1234)] == [{"n": n} for n in range(1234)]


def test_nothing_to_import_is_fine(path):
    ran = command("import", path, "-")
    assert ran.returncode == 0
    assert "imported 0 documents" in ran.stderr


def test_importing_makes_no_store_unless_it_is_asked_to(tmp_path, capsys):
    (tmp_path / "lines.jsonl").write_text(line("a", {}))
    new = tmp_path / "new.db"
    assert tide.cli.main(["import", str(new), str(tmp_path / "lines.jsonl")]) == 1
    assert capsys.readouterr().err == f"tide import: there is no file {new}\n"
    assert not new.exists()
    assert tide.cli.main(["import", str(new), str(tmp_path / "lines.jsonl"), "--create"]) == 0
    assert held(new) == {"todos": {"a": {}}}


def test_a_bad_file_makes_no_store_either(tmp_path):
    (tmp_path / "lines.jsonl").write_text("oops")
    new = tmp_path / "new.db"
    assert tide.cli.main(["import", str(new), str(tmp_path / "lines.jsonl"), "--create"]) == 1
    assert not new.exists()


def test_lines_that_are_not_there_are_told(path, capsys):
    assert tide.cli.main(["import", str(path), "nowhere.jsonl"]) == 1
    assert capsys.readouterr().err == "tide import: nowhere.jsonl: No such file or directory\n"


def size_of(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_ctrl_c_ends_an_import_with_what_was_imported(path):
    lines = path.with_name("lines.jsonl")
    lines.write_text("".join(line(f"i{n}", {"text": "word " * 20}) for n in range(50_000)))
    wal = path.with_name("app.db-wal")
    with subprocess.Popen(
        [*COMMAND, "import", str(path), str(lines)], stderr=subprocess.PIPE
    ) as program:
        while program.poll() is None and size_of(wal) < 100_000:
            pass
        program.send_signal(signal.SIGINT)
        assert program.stderr is not None
        err = program.stderr.read().decode()
        assert program.wait(30) == 130
    assert err.startswith("stopped; at least ")
    assert err.count("\n") == 1
    told = int(err.split()[3].replace(",", ""))
    imported = len(held(path)["todos"]) - len(DOCUMENTS["todos"])
    assert 0 < imported < 50_000
    assert told <= imported
    assert imported % 500 == 0  # whole batches


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_long_work_shows_a_bar_on_a_terminal_and_wipes_it(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("tide.commands.progress.PATIENCE", 0.0)
    monkeypatch.setattr("tide.commands.progress.REST", 0.0)
    with Progress("importing", 200) as progress:
        progress.at(50)
        progress.at(200)
    shown = terminal.getvalue()
    assert "importing [#######.......................]  25%" in shown
    assert "importing [##############################] 100%" in shown
    assert shown.endswith("\r")
    assert not shown.split("\r")[-2].strip()


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_short_work_and_scripts_get_no_bar(monkeypatch, patience):
    stream = Terminal() if patience else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("tide.commands.progress.PATIENCE", patience)
    with Progress("importing", 0) as progress:
        progress.at(1)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("name", ["export", "import"])
def test_a_wrong_use_ends_with_the_usage(capsys, name):
    with pytest.raises(SystemExit) as caught:
        tide.cli.main([name])
    assert caught.value.code == 2
    assert f"usage: tide {name}" in capsys.readouterr().err
