"""A queue of keys to reconcile: each key is queued at most once and has at most one worker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

from fast.errors import FastError

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)


class ShutDown(Exception):
    """The queue was shut down and is empty: the worker may end."""


class WorkQueue(Generic[K]):
    """Keys in the order of their first addition, deduplicated, with delays and a growing wait for keys that fail.

    A key added while a worker has it is queued again when the worker is done, so one key never has two workers. For one
    event loop; only :meth:`get` and :meth:`run` wait.
    """

    def __init__(self, *, backoff_seconds: tuple[float, float] = (0.1, 60.0)) -> None:
        """Make an empty queue.

        Args:
            backoff_seconds: The wait after a key's first failure, which doubles with each further one, and the longest.
        """
        self._first_wait, self._longest_wait = backoff_seconds
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._delayed: dict[K, asyncio.TimerHandle] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Queue the key, unless it is queued already. Does nothing after shut-down."""
        if self._shut_down or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queue the key after a time; of several times for one key, the earliest counts."""
        if self._shut_down:
            return
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if (pending := self._delayed.get(key)) is not None:
            if pending.when() <= when:
                return
            pending.cancel()
        self._delayed[key] = loop.call_at(when, self._due, key)

    def add_rate_limited(self, key: K) -> None:
        """Queue the key after a wait that doubles with each call, until :meth:`forget`."""
        self.add_after(key, self._next_wait(key))

    def forget(self, key: K) -> None:
        """Reset the key's back-off."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for the next key and take it; the caller must call :meth:`done`.

        Raises:
            ShutDown: The queue was shut down and holds no more keys.
        """
        while not self._ready:
            if self._shut_down:
                raise ShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._ready:
                    self._wake()  # woken for a key but cancelled: wake another worker
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """End the work on the key; queues it again if it was added meanwhile."""
        self._working.discard(key)
        if key in self._dirty:
            self._push(key)

    def shut_down(self) -> None:
        """Accept no more keys, drop delayed ones; workers get the queued keys, then :class:`ShutDown`. Idempotent."""
        self._shut_down = True
        for pending in self._delayed.values():
            pending.cancel()
        self._delayed.clear()
        while self._waiters:
            self._wake()

    async def run(self, reconcile: Callable[[K], Awaitable[None]], *, workers: int = 1) -> None:
        """Reconcile keys until shut down or cancelled, ``workers`` at a time.

        ``reconcile`` acts on the state it finds, not on what happened. If it raises, the key is retried after a growing
        wait. After a :class:`fast.errors.FastError` that is not ``retryable``, such as missing rights, it is retried
        after the longest wait.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(reconcile))

    async def _work(self, reconcile: Callable[[K], Awaitable[None]]) -> None:
        while True:
            try:
                key = await self.get()
            except ShutDown:
                return
            try:
                await reconcile(key)
            except FastError as error:
                wait = self._next_wait(key) if error.retryable else self._longest_wait
                self.add_after(key, wait)
                log.warning("reconcile failed", key=key, error=str(error), retry_in=round(wait, 2))
            except Exception:
                self.add_rate_limited(key)
                log.exception("reconcile failed", key=key)
            else:
                self.forget(key)
            finally:
                self.done(key)

    def _next_wait(self, key: K) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(self._first_wait * 2.0 ** min(failures, 30), self._longest_wait)

    def _due(self, key: K) -> None:
        del self._delayed[key]
        self.add(key)

    def _push(self, key: K) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        """Wake one waiting worker."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
