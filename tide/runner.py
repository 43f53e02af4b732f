"""One thread with one event loop, for callers that are not async."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tide.errors import ForkedError, NotOpenError, UsageError

__all__ = ["Runner"]

PATIENCE = 2.0
"""Seconds that the end of the program waits for a forgotten close."""

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


class Runner:
    """Runs coroutines on a daemon thread of its own, and hands back what they return.

    It ends with `close`, or when nobody holds it any more, or with the program.

    Args:
        name: of the thread, and in messages.
        last: what to run at the end; it must not hold the runner.
    """

    def __init__(self, name: str, last: Work[None]) -> None:
        self._name = name
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name=f"tide {name}", daemon=True
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, _abandon, self._loop, self._thread, last)
        self._last = last

    def call(self, work: Work[T]) -> T:
        """What the coroutine that *work* makes returns, or raises; waits for it.

        It runs in a copy of the caller's context, so it sees a batch that is open here.

        Raises:
            ForkedError: the thread is in the process that this one was forked from.
            NotOpenError: it was closed.
            UsageError: this is that very thread, so waiting would never end.
        """
        self._check()
        return self.submit(work).result()

    def submit(self, work: Work[T]) -> concurrent.futures.Future[T]:
        """Like `call`, without waiting, from any thread.

        Raises:
            NotOpenError: it was closed.
        """
        try:
            return _submit(self._loop, work)
        except RuntimeError:  # the loop is closed
            raise NotOpenError(f"{self._name} was closed; connect anew") from None

    def close(self) -> None:
        """Run what is to be run last, and end the thread. Idempotent.

        Raises:
            ForkedError: see `call`; likewise UsageError.
        """
        self._check()
        if self._finalizer.detach():
            try:
                _submit_last(self._loop, self._last).result()
            finally:
                self._thread.join()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                f"{self._name} was connected before this process forked; connect anew here"
            )
        if threading.get_ident() == self._thread.ident:
            raise UsageError(
                f"{self._name}: a callback runs on tide's own thread, which can't wait for itself; "
                "hand the work over to another thread, such as with queue.Queue"
            )


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """(the thread) Run *loop* until it is stopped."""
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _submit(loop: asyncio.AbstractEventLoop, work: Work[T]) -> concurrent.futures.Future[T]:
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def start() -> None:
        loop.create_task(work()).add_done_callback(lambda done: _pass_on(done, future))

    loop.call_soon_threadsafe(start, context=contextvars.copy_context())
    return future


def _submit_last(
    loop: asyncio.AbstractEventLoop, last: Work[None]
) -> concurrent.futures.Future[None]:
    future = _submit(loop, last)
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
    return future


def _abandon(loop: asyncio.AbstractEventLoop, thread: threading.Thread, last: Work[None]) -> None:
    """Nobody holds the runner any more, or the program ends: see to it without much waiting."""
    if not thread.is_alive():  # which it is not after a fork
        return
    future = _submit_last(loop, last)
    if thread is not threading.current_thread():
        concurrent.futures.wait([future], timeout=PATIENCE)


def _pass_on(done: asyncio.Future[T], future: concurrent.futures.Future[T]) -> None:
    if done.cancelled():
        future.set_exception(NotOpenError("tide was closed while this was on its way"))
    elif error := done.exception():
        future.set_exception(error)
    else:
        future.set_result(done.result())
