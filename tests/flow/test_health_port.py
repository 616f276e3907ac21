"""Health and metrics on a port of their own, as real workers of either role serve them."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

import pytest

from tests.flow.driver import eventually
from tests.flow.stories import Deploy
from tutormax_streams.embedded.server import HOST, free_port

PATHS = ("/livez", "/readyz", "/startupz", "/metrics", "/version")
KEY = "5f3b8f1d0c7e4a52b9d6e8f7a1c2d3e4"


def status(port: int, path: str) -> int | None:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.mark.parametrize("roles", ["stream,sink", "sink"])
async def test_health_has_a_port_of_its_own_and_the_web_port_has_none(deploy: Deploy, roles: str):
    deployment, port = deploy(settings={"SECRET_KEY": KEY}), free_port()
    worker = deployment.worker()
    worker.start(TUTORMAX_HEALTH_PORT=str(port), TUTORMAX_ROLES=roles)
    try:
        await eventually(lambda: status(port, "/startupz") == 200, seconds=60)
        await eventually(lambda: status(port, "/readyz") == 200, seconds=60)
        told = json.loads(
            await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{HOST}:{port}/readyz").read())
        )
        assert set(told["roles"]) == set(roles.split(","))
        for path in PATHS:
            assert (status(port, path), status(worker.port, path)) == (200, 404), path
        assert status(worker.port, "/operations/state") == 401
    finally:
        assert await worker.stop() == 0
