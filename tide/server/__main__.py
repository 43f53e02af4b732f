"""`tide serve`: the reference server as a program."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from tide.errors import StoreError
from tide.server import bearer, create_app
from tide.server.auth import Authenticate

__all__ = ["main"]

GRACE = 10  # seconds for requests under way to end when the server is asked to stop


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop (Ctrl-C, SIGTERM); *argv* without the program's name.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(argv)
    try:
        authenticate = _authenticate(options.token_file)
        asyncio.run(_serve(options, authenticate))
    except (StoreError, OSError) as error:
        print(f"tide serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # a second Ctrl-C
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tide serve", description="Serve a database to nodes, over HTTP."
    )
    parser.add_argument("--db", default="server.db", metavar="FILE", help="default: server.db")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument(
        "--port", type=_port, default=8000, help="default: 8000; 0 picks a free one"
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="let in callers with one of these bearer tokens: a line each, 'token name'",
    )
    parser.add_argument(
        "--anonymous", action="store_true", help="let everybody read and write everything"
    )
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _authenticate(token_file: str | None) -> Authenticate | None:
    if token_file is None:
        return None
    try:
        text = Path(token_file).read_text("utf-8")
    except UnicodeDecodeError:
        raise OSError(f"{token_file} is not a text file: write a token in each line") from None
    lines = [line.split(None, 1) for line in text.splitlines()]
    tokens = {parts[0]: parts[1].strip() if len(parts) > 1 else "token" for parts in lines if parts}
    if not tokens:
        raise OSError(f"{token_file} holds no token: write one in each line")
    return bearer(tokens)


async def _serve(options: argparse.Namespace, authenticate: Authenticate | None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    app = create_app(options.db, authenticate=authenticate, anonymous=options.anonymous)
    await app.state.service.open()  # so that a wrong file is told before a port is taken
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config)
    server.opening = f"tide serves {options.db} at http://{{}}/sync ({_admits(options)})"
    try:
        await server.serve()
    except SystemExit:  # uvicorn has logged why
        message = f"can't listen on {options.host}:{options.port}; is the port in use?"
        raise OSError(message) from None
    if server.force_exit:
        raise KeyboardInterrupt


def _admits(options: argparse.Namespace) -> str:
    if options.token_file is not None:
        return "callers with a token"
    if options.anonymous:
        return "WARNING: everybody who can reach it may read and write everything"
    return "callers on this machine only; see --token-file"


class _Server(uvicorn.Server):
    """Says where it listens, once it does; a signal to stop is no failure."""

    opening = ""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        # uvicorn's own would note the signal, to let the process die of it in the end.
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(self.opening.format(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
            sys.stdout.flush()


if __name__ == "__main__":
    os.umask(0o077)  # the database and its WAL are for their owner only
    raise SystemExit(main())
