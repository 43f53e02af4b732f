"""`tide serve` as people run it: a process, its start line, its signals, its log."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support import PATIENCE, free_port
from tide.server import create_app

NODE = "alice.phone.0001"
START = re.compile(
    r"tide serves (?P<db>.*) at http://(?P<host>.*):(?P<port>\d+)/sync \((?P<who>.*)\)"
)
SERVE = ["-m", "tide", "serve"]
BAD_OP = {"collection": "todos", "id": "hunter2-id", "doc": {"a": 2**64}, "stamp": [1, NODE]}
OP = {"collection": "todos", "id": "hunter2-id", "doc": {"hunter2": "hunter2"}, "stamp": [1, NODE]}


def with_grace(seconds):
    """The command, with another time for requests under way to end in."""
    code = f"import sys, tide.server.__main__ as serve; serve.GRACE = {seconds}"
    return ["-c", f"{code}; sys.exit(serve.main())"]


class Program:
    """A running `tide serve`."""

    def __init__(self, folder, *options, command=SERVE):
        self.log = tempfile.TemporaryFile("w+", dir=folder)  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, *command, *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout
        self.out = self.process.stdout
        self.line = self.out.readline()
        found = START.fullmatch(self.line.strip())
        assert found, (self.line, self.logged())
        self.told = found.groupdict()
        self.port = int(self.told["port"])

    def ask(self, *ops, headers=None, cursor=None, path="/sync"):
        body = json.dumps({"node_id": NODE, "cursor": cursor, "ops": ops, "v": 1}).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        url = f"http://127.0.0.1:{self.port}{path}"
        asked = urllib.request.Request(url, body, headers)
        with contextlib.closing(urllib.request.urlopen(asked, timeout=PATIENCE)) as answer:
            return json.load(answer)

    def status(self, **options):
        try:
            self.ask(**options)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200

    def connect(self, text):
        """A connection on which *text* was sent."""
        line = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        line.sendall(text.replace("\n", "\r\n").encode())
        return line

    def stops_listening(self):
        """Wait for the first thing that it does when it is told to stop."""
        with contextlib.suppress(OSError):
            while True:
                self.connect("").close()

    def logged(self):
        self.log.seek(0)
        return self.log.read()

    def end(self, how=signal.SIGTERM):
        """Send the signal; the exit code, and what else it printed."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE), self.out.read()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.log.close()


@pytest.fixture
def serve(tmp_path):
    """Starts `tide serve` in a folder of the test."""
    programs = []

    def start(*options, **kwargs):
        programs.append(Program(tmp_path, *options, **kwargs))
        return programs[-1]

    yield start
    for program in programs:
        program.stop()


def run(folder, *options):
    """Run it where it can't start; exit code and what it says."""
    command = [sys.executable, *SERVE, *options]
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    return ran.returncode, ran.stderr


# Start


@pytest.mark.parametrize("command", [SERVE, ["-m", "tide.server"]])
def test_it_says_on_one_line_what_it_serves_where_and_to_whom(serve, tmp_path, command):
    program = serve("--port", "0", command=command)
    assert program.told == {
        "db": "server.db",
        "host": "127.0.0.1",
        "port": str(program.port),
        "who": "callers on this machine only; see --token-file",
    }
    assert program.ask(OP)["results"] == [{"status": "ok"}]
    assert (tmp_path / "server.db").stat().st_mode & 0o777 == 0o600
    assert program.end() == (0, "")


def test_file_host_and_port_can_be_chosen(serve, tmp_path):
    port = free_port()
    program = serve("--db", "my own.db", "--host", "localhost", "--port", str(port))
    assert (program.told["db"], program.port) == ("my own.db", port)
    assert program.status() == 200
    assert (tmp_path / "my own.db").exists()


def test_who_opens_it_to_all_is_warned(serve):
    assert "WARNING: everybody" in serve("--port", "0", "--anonymous").told["who"]


def test_an_address_of_ipv6_is_told_as_it_is_typed(serve):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("needs IPv6")
    assert serve("--port", "0", "--host", "::1").told["host"] == "[::1]"


def test_who_has_a_token_is_let_in(serve, tmp_path):
    (tmp_path / "tokens").write_text("s3cret alice the first\n\n0ther\n", "utf-8")
    program = serve("--port", "0", "--token-file", "tokens")
    assert program.told["who"] == "callers with a token"
    for token, status in (("s3cret", 200), ("0ther", 200), ("alice", 401), ("", 401)):
        assert program.status(headers={"Authorization": f"Bearer {token}"}) == status
    assert program.status() == 401
    assert "who='alice the first'" in program.logged()


def test_two_processes_can_serve_one_file(serve):
    one, two = serve("--port", "0"), serve("--port", "0")
    one.ask(OP)
    assert [change["id"] for change in two.ask()["changes"]] == [OP["id"]]


# What it can't do


def test_a_port_that_is_taken_is_told(serve, tmp_path):
    port = str(serve("--port", "0").port)
    code, told = run(tmp_path, "--db", "other.db", "--port", port)
    assert code == 1
    assert f"can't listen on 127.0.0.1:{port}; is the port in use?" in told


@pytest.mark.parametrize("port", ["-1", "65536", "99999999999999999999", "http", "", "²"])
def test_a_port_that_is_none_is_told(tmp_path, port):
    code, told = run(tmp_path, f"--port={port}")
    assert code == 2
    assert f"{port!r} is not a port" in told


def test_a_file_that_is_none_of_its_own_is_told_and_no_port_is_taken(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear friend,\n" * 99, "utf-8")
    code, told = run(tmp_path, "--db", "letter.txt", "--port", "0")
    assert code == 1
    assert told.startswith("tide serve: letter.txt: file is not a database")
    assert (tmp_path / "letter.txt").read_text("utf-8") == "Dear friend,\n" * 99


def test_a_file_in_no_directory_is_told(tmp_path):
    code, told = run(tmp_path, "--db", "nowhere/server.db")
    assert code == 1
    assert "does its directory exist?" in told


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "No such file"),
        (b"", "holds no token"),
        (b"\n  \n", "holds no token"),
        (b"\xff\xfe\0", "not a text file"),
    ],
)
def test_a_token_file_without_tokens_is_told(tmp_path, content, match):
    if content is not None:
        (tmp_path / "tokens").write_bytes(content)
    code, told = run(tmp_path, "--token-file", "tokens", "--port", "0")
    assert code == 1
    assert match in told
    assert not (tmp_path / "server.db").exists()


# The page

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")


def test_the_page_tells_of_every_option_and_its_default():
    ran = subprocess.run(
        [sys.executable, *SERVE, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    options = set(re.findall(r"--[a-z-]+", ran.stdout)) - {"--help"}
    assert len(options) == 5
    told = dict(re.findall(r"^\| `(--[a-z-]+)[A-Z ]*` \| `?([^|`]*?)`? ?\|", PAGE, re.MULTILINE))
    assert set(told) == options
    for option in ("--db", "--host", "--port"):
        assert f"default: {told[option]}" in ran.stdout


def test_the_page_tells_of_every_argument_and_its_default():
    told = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]*) \|", PAGE, re.MULTILINE))
    arguments = inspect.signature(create_app).parameters
    assert {name: ast.literal_eval(default.strip("`")) for name, default in told.items()} == {
        name: argument.default for name, argument in arguments.items()
    }


# Stop


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_f62_a_signal_ends_it_well_also_with_connections_that_wait(serve, tmp_path, how):
    program = serve("--port", "0", command=with_grace(1000))  # longer than this test waits
    program.ask(OP)
    with contextlib.closing(program.connect("GET /healthz HTTP/1.1\nHost: x\n\n")) as idle:
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")  # and is kept alive
        with contextlib.closing(program.connect("POST /sync HTTP/1.1\nHost: x\n")):
            assert program.end(how) == (0, "")
    assert "Traceback" not in program.logged()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.db"]
    again = serve("--port", "0")
    assert len(again.ask()["changes"]) == 1


def half_a_request():
    body = json.dumps({"node_id": NODE, "cursor": None, "ops": [OP]})
    head = (
        f"POST /sync HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: {len(body)}"
    )
    return f"{head}\nExpect: 100-continue\n\n{body[:9]}", body[9:]


def test_a_request_under_way_is_answered_before_it_ends(serve):
    program = serve("--port", "0")
    first, rest = half_a_request()
    with contextlib.closing(program.connect(first)) as line:
        assert line.recv(1000).startswith(b"HTTP/1.1 100")  # it is being read
        program.process.send_signal(signal.SIGTERM)
        program.stops_listening()
        line.sendall(rest.encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 200")
    assert program.process.wait(PATIENCE) == 0
    assert "ops=1" in program.logged()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_never_ends_does_not_keep_it(serve, how):
    program = serve("--port", "0", command=with_grace(0.2))
    first, _ = half_a_request()
    with contextlib.closing(program.connect(first)) as line:
        assert line.recv(1000).startswith(b"HTTP/1.1 100")
        assert program.end(how)[0] == 0
    again = serve("--port", "0")
    assert again.ask()["changes"] == []


def test_a_second_ctrl_c_ends_it_at_once(serve):
    program = serve("--port", "0")
    first, _ = half_a_request()
    with contextlib.closing(program.connect(first)) as line:
        assert line.recv(1000).startswith(b"HTTP/1.1 100")
        program.process.send_signal(signal.SIGINT)
        program.stops_listening()
        assert program.end(signal.SIGINT)[0] == 130


# Log


def test_its_log_has_a_line_for_each_exchange_and_no_secret(serve, tmp_path):
    (tmp_path / "tokens").write_text("hunter2-token alice\n", "utf-8")
    program = serve("--port", "0", "--token-file", "tokens")
    good = {"Authorization": "Bearer hunter2-token", "Cookie": "hunter2"}
    program.ask(OP, headers=good)
    program.ask(BAD_OP, headers=good, path="/sync/home")
    assert program.status(headers={"Authorization": "Bearer hunter2-wrong"}) == 401
    assert program.status(headers=good, cursor="hunter2") == 409
    assert program.status(headers=good, path="/sync?token=hunter2") == 200
    assert program.end() == (0, "")
    lines = [line for line in program.logged().splitlines() if " sync " in line]
    assert "hunter2" not in program.logged() + program.line
    assert len(lines) == 5
    assert "sync space=default who='alice' node=alice.phone.0001 ops=1 changes=0" in lines[0]
    assert re.search(r" bytes=\d+ status=200 code=ok ms=[\d.]+$", lines[0])
    assert "space=home" in lines[1]
    assert "who='-' node=- ops=0 changes=0 bytes=0 status=401 code=unauthorized" in lines[2]
    assert "status=409 code=reset" in lines[3]
