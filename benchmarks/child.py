"""The worker that is measured: the product's own, which also notes how much CPU it had used when its work began.

`python -m benchmarks.child` takes its settings from the environment, as `tutormax-streams worker` does.
BENCHMARK_MARK names the file that gets the CPU seconds at the first batch of raw records; with BENCHMARK_PROFILE the
whole run goes through cProfile into that file (and takes twice as long).
"""

from __future__ import annotations

import cProfile
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.validate import Validate
from tutormax_streams import worker


def note_first_batch(mark: Path) -> None:
    """Have the first call of `validate` write the process's CPU seconds to `mark`."""
    step: Callable[..., Any] = Validate.__call__

    def first(self: Validate, batch: Any) -> Any:
        mark.write_text(str(time.process_time()))
        Validate.__call__ = step  # type: ignore[method-assign]
        return step(self, batch)

    Validate.__call__ = first  # type: ignore[method-assign]


def main() -> int:
    if mark := os.environ.get("BENCHMARK_MARK"):
        note_first_batch(Path(mark))
    profile = os.environ.get("BENCHMARK_PROFILE")
    if not profile:
        return worker.main()
    profiler = cProfile.Profile()
    try:
        return profiler.runcall(worker.main)
    finally:
        profiler.dump_stats(profile)


if __name__ == "__main__":
    sys.exit(main())
