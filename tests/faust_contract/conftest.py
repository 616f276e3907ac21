"""Stock Faust makes a directory for each app beside the program: these go where pytest cleans up."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DATADIR", str(tmp_path))  # also of the processes that tests start
