"""One thread with one event loop, for callers that are not async."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tide.errors import ForkedError, NotOpenError, UsageError

__all__ = ["Runner"]

logger = logging.getLogger("tide")

PATIENCE = 2.0
"""Seconds that the end of the program waits for a forgotten close."""

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]


class Runner:
    """Runs work on a daemon thread of its own, and hands back what comes of it.

    It ends with `close`, or when nobody holds it any more, or with the program.

    Args:
        name: of the thread, and in messages.
        last: what to run at the end; it must not hold the runner.
    """

    def __init__(self, name: str, last: Work[None]) -> None:
        self._name = name
        self._pid = os.getpid()
        self._loop = _Loop(name, last)
        self._thread = threading.Thread(target=self._loop.run, name=f"tide {name}", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _abandon, self._loop, self._thread)

    def call(self, work: Work[T]) -> T:
        """What comes of *work*, awaited on the thread; waits for it.

        It runs in a copy of the caller's context, so it sees a batch that is open here. Who stops
        waiting, as by Ctrl-C, does not stop it.

        Raises:
            ForkedError: the thread is in the process that this one was forked from.
            NotOpenError: it was closed.
            UsageError: this is that very thread, so waiting would never end.
        """
        self._check_caller()
        return self.submit(work).result()

    def ask(self, question: Callable[[], T]) -> T:
        """What the plain function *question* returns on the thread; raises as `call` does."""

        async def answer() -> T:
            return question()

        return self.call(answer)

    def submit(self, work: Work[T]) -> Future[T]:
        """Like `call`, without waiting, also from the thread itself.

        Raises:
            ForkedError: see `call`; likewise NotOpenError.
        """
        self._check_process()
        return self._loop.submit(work)

    def close(self) -> None:
        """Run what is to be run last, and end the thread. Idempotent.

        What others are waiting for is finished, or raises a `NotOpenError`.

        Raises:
            ForkedError: see `call`; likewise UsageError.
        """
        self._check_caller()
        first = self._finalizer.detach()
        self._loop.stop()
        self._thread.join()
        if first:
            self._loop.ended.result()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                f"{self._name} was connected before this process forked; connect anew, "
                "in a process that was spawned"
            )

    def _check_caller(self) -> None:
        self._check_process()
        if threading.get_ident() == self._thread.ident:
            raise UsageError(
                f"{self._name}: a callback runs on tide's own thread, which can't wait for itself; "
                "hand the work over to another thread, such as with queue.Queue"
            )


class _Loop:
    """The event loop of a runner. It does not hold the runner, so that one can be dropped.

    Attributes:
        ended: what came of *last*, once the loop has ended.
    """

    def __init__(self, name: str, last: Work[None]) -> None:
        self.ended: Future[None] = Future()
        self._name = name
        self._last = last
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._over = False  # used on the thread
        # Who waits, each with the task, which the event loop itself does not keep alive.
        self._waiting: dict[Future[Any], asyncio.Task[Any] | None] = {}

    def submit(self, work: Work[T]) -> Future[T]:
        """Start *work*, in a copy of this context."""
        future: Future[T] = Future()
        self._waiting[future] = None  # before anything else: `run` looks at it after all else
        try:
            self._loop.call_soon_threadsafe(self._start, work, future)
        except RuntimeError:  # the loop is closed
            self._waiting.pop(future, None)
            raise self._closed() from None
        return future

    def stop(self) -> None:
        """Let it end. Idempotent, and never waits."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)

    def run(self) -> None:
        """(the thread) Run until `stop`; then the last thing, and nobody is left waiting."""
        try:
            self._until_stopped()
            self._loop.run_until_complete(self._end())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException as error:  # noqa: BLE001 - handed to who closes
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
        finally:
            self._loop.close()
            for future in list(self._waiting):
                future.set_exception(self._closed())

    def _until_stopped(self) -> None:
        try:
            self._loop.run_until_complete(self._stopping.wait())
        except (SystemExit, KeyboardInterrupt):  # raised by a callback; the program goes on
            logger.exception("%s: a callback ended tide's thread, so it is closed", self._name)

    def _start(self, work: Work[T], future: Future[T]) -> None:
        if self._over:
            return  # `run` tells who waits

        async def wait() -> T:
            return await work()

        task = self._waiting[future] = self._loop.create_task(wait())
        task.add_done_callback(lambda _: self._pass_on(task, future))

    def _pass_on(self, task: asyncio.Task[T], future: Future[T]) -> None:
        if self._waiting.pop(future, None) is None:
            return
        if task.cancelled():
            future.set_exception(self._closed())
        elif error := task.exception():
            future.set_exception(error)
        else:
            future.set_result(task.result())

    async def _end(self) -> None:
        try:
            await self._last()
        finally:
            self._over = True
            if left := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=1.0)

    def _closed(self) -> NotOpenError:
        return NotOpenError(f"{self._name} was closed; connect anew")


def _abandon(loop: _Loop, thread: threading.Thread) -> None:
    """Nobody holds the runner any more, or the program ends: see to it without much waiting."""
    if thread.is_alive():  # which it is not after a fork
        loop.stop()
        if thread is not threading.current_thread():
            thread.join(PATIENCE)
