"""A worker process of this program, guarded like the servers beside it: for the demo and for tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

from tutormax_streams.embedded.server import HOST, EmbeddedError, Server


class EmbeddedWorker(Server):
    """`tutormax-streams worker` with the settings given and none of our own environment's.

    `start` returns once it serves HTTP, which is after its start-up checks and before it has its partitions; `stop` is
    the SIGTERM that drains it.
    """

    kind: ClassVar[str] = "worker"
    grace_seconds: ClassVar[float] = 30.0

    def __init__(self, environment: Mapping[str, str], *, port: int | None = None) -> None:
        super().__init__()
        if port is not None:
            self.port = port
        self._given = dict(environment)

    @classmethod
    def why_not(cls) -> str | None:
        return None

    @property
    def description(self) -> str:
        return "the worker"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def _prepare(self, home: Path) -> None:
        self._given.setdefault("TUTORMAX_DATA_DIR", str(home / "tables"))

    def _command(self, home: Path) -> Sequence[str]:
        return [sys.executable, "-m", "tutormax_streams", "worker"]

    def _environment(self) -> Mapping[str, str]:
        ours = ("TUTORMAX_", "KAFKA_", "POSTGRES_")
        inherited = {name: "" for name in os.environ if name.upper().startswith(ours)}  # empty is as good as unset
        return {
            **inherited,
            "TUTORMAX_LOG_FORMAT": "console",
            "TUTORMAX_WEB_HOST": HOST,
            "TUTORMAX_WEB_PORT": str(self.port),
            **self._given,
        }

    def _is_ready(self) -> bool:
        return self.get("/livez")[0] == HTTPStatus.OK

    def get(self, path: str, *, timeout_seconds: float = 3.0) -> tuple[int, bytes]:
        """(status, body) of a request to the worker's web server; OSError while it does not answer."""
        connection = HTTPConnection(HOST, self.port, timeout=timeout_seconds)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except HTTPException as error:
            raise ConnectionError(f"{self.url}{path} gave no HTTP answer") from error
        finally:
            connection.close()

    def ensure_running(self) -> None:
        """EmbeddedError with the worker's last words if it has ended."""
        if not self.running:
            raise EmbeddedError(f"the worker ended unexpectedly: {self._last_words()}")
