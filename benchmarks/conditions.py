"""Under which conditions a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of one run, taken at its start."""

    date: str
    commit: str  # with "+" where the tree had uncommitted changes
    machine: str
    load_average: str
    software: str
    servers: str

    @classmethod
    def now(cls, servers: str) -> Conditions:
        packages = ("faust-streaming", "aiokafka", "rocksdict", "psycopg", "msgspec", "pydantic", "uvloop")
        return cls(
            date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            commit=_commit(),
            machine=f"{os.cpu_count()} CPUs ({_processor()}), shared by worker, broker, database and benchmark",
            load_average=" ".join(f"{load:.2f}" for load in os.getloadavg()),
            software=f"CPython {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in packages),
            servers=servers,
        )

    def lines(self) -> list[str]:
        return [
            f"date {self.date}, commit {self.commit}",
            f"machine: {self.machine}; load average at start {self.load_average}",
            f"software: {self.software}",
            f"servers: {self.servers}",
        ]
