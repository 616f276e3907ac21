"""The deployment whose page a browser visits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flow import users
from tests.flow.driver import Deployment


@contextmanager
def one_worker(kafka: str, postgres: str, home: Path) -> Iterator[Deployment]:
    """One worker, begun to start, and the platform's users; alerts settle within a second."""
    users.make(postgres)
    settings = {"SECRET_KEY": users.KEY, "TUTORMAX_WEB_RATE_PER_MINUTE": "0", "TUTORMAX_ALERT_SETTLE_SECONDS": "1"}
    deployment = Deployment(kafka, postgres, home, settings=settings)
    deployment.worker().start()
    try:
        yield deployment
    finally:
        deployment.close()
