"""A lock between processes, on a file that does nothing else; it dies with its process."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

if os.name == "nt":  # pragma: no cover - Windows
    import msvcrt

    def _try_lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

    def _unlock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


__all__ = ["FileLock"]


class FileLock:
    """An exclusive lock between processes, and between two holders in one process.

    The file at *path* is made when it is first taken and stays: removing it would let two
    processes lock two files of one name. It must never be the SQLite file itself, since closing
    that file drops SQLite's own locks (sqlite.org/howtocorrupt.html, section 2.2).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._pid = 0

    def take(self) -> bool:
        """Take the lock if it is free; whether this object holds it now. Never waits."""
        if self._file is None:
            file = self._path.open("ab")
            try:
                _try_lock(file)
            except OSError:  # somebody else holds it
                file.close()
                return False
            self._file, self._pid = file, os.getpid()
        return True

    def is_held(self) -> bool:
        """Whether somebody holds it. Makes no file."""
        if self._file is not None:
            return True
        try:
            with self._path.open("rb") as file:
                _try_lock(file)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def holder(self) -> int | None:
        """The process that holds it; None if nobody does, or if the system does not tell."""
        try:
            inode = self._path.stat().st_ino
            locks = Path("/proc/locks").read_text("ascii")  # proc_locks(5); only Linux has it
        except OSError:
            return None
        held = re.search(rf" FLOCK +\S+ +WRITE +(\d+) \S+:{inode} ", locks)
        return int(held[1]) if held else None

    def release(self) -> None:
        """Let go of the lock. Idempotent."""
        if self._file is not None:
            if self._pid == os.getpid():  # a forked child shares the lock, and must not end it
                _unlock(self._file)  # closing does not, while such a child lives
            self._file.close()
            self._file = None
