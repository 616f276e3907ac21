"""How a worker's memory is kept small: what it asks of malloc and of Python's garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc

import faust

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h
LARGE_BLOCK_BYTES = 64 << 10
MOST_HEAPS = 2
GARBAGE_OBJECTS = 10_000
TRIM_SECONDS = 10.0


def return_large_blocks() -> None:
    """Have glibc give buffers of fetches and batches back to the system when they are freed. Elsewhere nothing happens.

    Left to itself it raises its limit of "large" to what was freed last, up to 32 MiB, and such blocks then lie between
    small ones that stay: 28 MiB more after a backlog. And it keeps eight heaps a core, one for each thread, which fill
    with what other threads free.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(M_ARENA_MAX, MOST_HEAPS)


def spare_the_collector() -> None:
    """Look for cycles of garbage seldom, and never among what was imported.

    A batch is tens of thousands of objects that reference counts free; the collector's default is to look at them at
    every 700th. Call it when everything is put together.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 50)


def attach(app: faust.App) -> None:
    """Have what lies free between blocks in use given back now and then: 1 ms of an executor's thread or so."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return  # not glibc

    @app.timer(TRIM_SECONDS)  # type: ignore[untyped-decorator]
    async def trim_memory() -> None:
        await asyncio.to_thread(trim, 0)
