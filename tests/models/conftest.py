"""Properties take all the CPU they can get; tests of servers beside them have moments to keep."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _others_first() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.nice(10)
