"""The watchdog: a worker that stands still says where, and ends, so that it is started anew.

1. It is a thread of its own, which reads numbers that others have left and takes no lock of theirs: neither a blocked
   event loop nor a blocked consumer's thread stops it.
2. The main loop and each consumer's thread must beat. Whether work goes on is judged in the main loop (`stillness`),
   where positions may be read; its verdict is left for this thread.
3. Patience is counted in this process's own turns, each worth at most twice its length: time for which the process was
   frozen, or the machine asleep, does not count.
4. It ends the process in order where the main loop turns, by a crash like any other. What has not ended after
   `ORDERLY_SECONDS` is ended at once. Nothing unfinished is acknowledged either way.

Not seen: code in C that keeps the interpreter's lock for ever. Then /livez does not answer. Where that was met, it has
a timer of its own (`batches.shelves`).
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

STOOD_STILL = 75  # sysexits: a temporary failure, try again
TICK_SECONDS = 0.5
ORDERLY_SECONDS = 10.0
STOPPING_SECONDS = 30.0  # what is promised of SIGTERM
SAYING_SECONDS = 5.0  # whoever reads our log may have stopped reading, too
MOST_FRAMES = 40


class StoodStill(Exception):
    """The worker made no progress, and nothing explains it."""


@dataclass(slots=True)
class Clocks:
    """For how long each thing has been due without a change. Seconds are the caller's turns, capped."""

    most_step: float
    _marks: dict[Hashable, Hashable] = field(default_factory=dict)
    _still: dict[Hashable, float] = field(default_factory=dict)
    _last: float | None = None
    step: float = 0.0

    def turn(self, now: float) -> None:
        """A turn begins. What was not looked at in the last one is forgotten."""
        self.step = 0.0 if self._last is None else min(now - self._last, self.most_step)
        self._last = now

    def still(self, name: Hashable, mark: Hashable, due: bool = True) -> float:
        """Seconds for which `name` has been due with this same mark."""
        if due and self._marks.get(name) == mark and name in self._marks:
            self._still[name] += self.step
        else:
            self._marks[name], self._still[name] = mark, 0.0
        return self._still[name]

    def forget(self, gone: Callable[[Hashable], bool]) -> None:
        """Begin anew with the names of which this is true."""
        for name in [name for name in self._marks if gone(name)]:
            del self._marks[name], self._still[name]


@dataclass(slots=True)
class Watchdog:
    """Watches one process. `patience` in seconds; 0 turns it off."""

    patience: float
    loop: asyncio.AbstractEventLoop
    crash: Callable[[BaseException], None]  # called in the main loop
    judge: Callable[[], str | None]  # called in the main loop, once a second
    thread_beats: Callable[[], Iterable[tuple[str, int | None]]]  # of other loops; None: not meant to beat
    thread_loops: Callable[[], Iterable[asyncio.AbstractEventLoop]]  # those loops, for their tasks' stacks
    stopping: Callable[[], bool]
    is_excused: Callable[[], bool]  # a last question before a verdict is carried out; may take seconds
    beat_seconds: float = 1.0
    beats: int = 0
    verdict: str | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to watch. Call it before the loop runs."""
        self.loop.call_soon(self._beat)
        if self.patience > 0:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """The loop has ended; nothing is to be watched."""
        self._ended.set()

    # -- in the main loop -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self.beats += 1
        try:
            found = self.judge()
        except Exception:
            # Whatever it was: who watches must not be what stops the worker.
            logger.exception("whether work goes on could not be judged")
        else:
            self.verdict = self.verdict or found
        if not self.loop.is_closed():
            self.loop.call_later(self.beat_seconds, self._beat)

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        clocks = Clocks(2 * TICK_SECONDS)
        while not self._ended.wait(TICK_SECONDS):
            clocks.turn(time.monotonic())
            if clocks.still("loop", self.beats) >= self.patience:
                self._end(f"the event loop has not turned for {self.patience:g} s", orderly=False)
            for name, beats in self.thread_beats():
                if clocks.still(name, beats, beats is not None) >= self.patience:
                    self._end(f"{name} has not turned for {self.patience:g} s", orderly=True)
            if clocks.still("stopping", 0, self.stopping()) >= (patience := max(self.patience, STOPPING_SECONDS)):
                self._end(f"the worker does not end, {patience:g} s after it was to stop", orderly=False)
            if (verdict := self.verdict) is not None:
                if not self.is_excused():
                    self._end(verdict, orderly=True)
                self.verdict = None  # it is found again while it is true

    def _end(self, why: str, *, orderly: bool) -> None:
        """Say where everything stands, and end the process."""
        _bounded(lambda: self._say(why))
        if orderly:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end by itself
                self.loop.call_soon_threadsafe(self.crash, StoodStill(why))
            if self._ended.wait(ORDERLY_SECONDS):
                return
        reason = StoodStill(why)
        _bounded(lambda: logger.critical("stopped by a failure, nothing unfinished was acknowledged: %r", reason))
        os._exit(STOOD_STILL)

    def _say(self, why: str) -> None:
        logger.critical("standing still: %s; where everything stands follows, then the worker ends", why)
        for title, stack in stacks_of_threads():
            logger.critical("thread %s", title, extra={"stack": stack})
        for loop in (self.loop, *self.thread_loops()):
            for title, stack in stacks_of_tasks(loop):
                logger.critical("task %s", title, extra={"stack": stack})


def _bounded(what: Callable[[], None]) -> None:
    """Call it in another thread and do not wait long: the log's lock may be held by who is stuck in writing to it."""
    thread = threading.Thread(target=what, name="watchdog-says", daemon=True)
    thread.start()
    thread.join(SAYING_SECONDS)
    if thread.is_alive():
        # Takes no lock; it can be held up only by who does not read our standard error.
        threading.Thread(target=faulthandler.dump_traceback, args=(sys.__stderr__,), daemon=True).start()
        time.sleep(1.0)


# -- stacks -----------------------------------------------------------------------------------------------------------


def stacks_of_threads() -> Iterator[tuple[str, str]]:
    """(name, stack) of every thread, the newest call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - public in spite of its name
        yield names.get(ident, str(ident)), "".join(traceback.format_stack(frame, MOST_FRAMES))


def stacks_of_tasks(loop: asyncio.AbstractEventLoop) -> list[tuple[str, str]]:
    """(names, stack) of the tasks of a loop, the newest call last; tasks that stand at the same place are one."""
    found: dict[str, list[str]] = defaultdict(list)
    for task in asyncio.all_tasks(loop):
        found["".join(_stack(task.get_coro()))].append(task.get_name())
    return [(", ".join(sorted(names)), stack) for stack, names in found.items()]


def _stack(awaited: Any) -> Iterator[str]:
    """Where a coroutine stands, and what it awaits, and so on down."""
    for _ in range(MOST_FRAMES):
        if awaited is None:
            return
        frame = _frame(awaited)
        if frame is None:
            # A wrapper of Python's own, which does not tell what it wraps, unless it is what is awaited in the end.
            wrapped = next((found for found in gc.get_referents(awaited) if _frame(found) is not None), None)
            if isinstance(awaited, asyncio.Future) or wrapped is None:
                yield f"  awaits {awaited!r}\n"
                return
            awaited = wrapped
            continue
        yield from traceback.format_list(traceback.extract_stack(frame, 1))
        inner = (getattr(awaited, name, None) for name in ("cr_await", "gi_yieldfrom", "ag_await"))
        awaited = next((found for found in inner if found is not None), None)


def _frame(awaited: Any) -> Any:
    return next((frame for kind in ("cr", "gi", "ag") if (frame := getattr(awaited, f"{kind}_frame", None))), None)
