"""What the options of a demo give it."""

from pathlib import Path

import pytest

from demos.launch import launched


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_running_demo_gets_a_file_of_its_own() -> None:
    with launched("textual", []) as one, launched("textual", []) as two:
        assert one.db == Path("tide-demo/textual-1.db")
        assert two.db == Path("tide-demo/textual-2.db")
        assert one.endpoint == two.endpoint == "http://127.0.0.1:8765/sync"
    with launched("textual", []) as again:
        assert again.db == one.db


def test_starts_a_server_only_for_the_endpoint_that_it_chose_itself() -> None:
    with launched("textual", []) as launch:
        assert launch.server is not None
    with launched("textual", ["--endpoint", "http://h/sync"]) as launch:
        assert (launch.endpoint, launch.server) == ("http://h/sync", None)
    with launched("textual", ["--offline"]) as launch:
        assert (launch.endpoint, launch.server) == (None, None)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--db", "no/folder/x.db"], "can't use no/folder/x.db: No such file or directory"),
        (["--db", "used.db"], "can't use used.db: it is open in another demo"),
        (["--offline", "--endpoint", "http://h/sync"], "not allowed with"),
    ],
)
def test_what_can_not_be_is_an_error_in_words(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        launched("textual", ["--db", "used.db"]),
        pytest.raises(SystemExit) as exit_,
        launched("textual", argv),
    ):
        pass
    assert exit_.value.code != 0
    assert says in capsys.readouterr().err


def test_an_endpoint_that_is_no_url_is_a_wrong_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--endpoint", "localhost:8000/sync"]
    with pytest.raises(SystemExit) as exit_, launched("textual", argv):
        pass
    assert exit_.value.code == 2
    assert (
        "argument --endpoint: 'localhost:8000/sync' is no endpoint; it looks like"
        in capsys.readouterr().err
    )
    assert list(Path().iterdir()) == []
