"""Workers of one role each, health and metrics on ports of their own: what is served where, and that they find each other."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.flow import users
from tests.flow.driver import eventually
from tests.flow.stories import Deploy
from tutormax_streams.embedded.server import HOST, free_port

PATHS = ("/livez", "/readyz", "/startupz", "/metrics", "/version")


def ask(port: int, path: str, **headers: str) -> tuple[int | None, bytes]:
    """Status and body; None while nobody answers."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None, b""


def state(port: int) -> dict[str, Any]:
    status, body = ask(port, "/operations/state", Authorization=f"Bearer {users.token(users.STAFF)}")
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


async def test_workers_of_one_role_each_have_health_on_its_own_port_and_know_each_other(
    deploy: Deploy, new_database: Callable[[], str]
):
    database = new_database()
    users.make(database)
    deployment = deploy(database=database, settings={"SECRET_KEY": users.KEY})
    ports = {role: free_port() for role in ("stream", "sink")}
    workers = {role: deployment.worker() for role in ports}
    for role, worker in workers.items():
        worker.start(TUTORMAX_HEALTH_PORT=str(ports[role]), TUTORMAX_ROLES=role)
    for role, worker in workers.items():
        await eventually(lambda port=ports[role]: ask(port, "/startupz")[0] == 200, seconds=90)
        await eventually(lambda port=ports[role]: ask(port, "/readyz")[0] == 200, seconds=90)
        assert set(json.loads(ask(ports[role], "/readyz")[1])["roles"]) == {role}
        for path in PATHS:
            assert (ask(ports[role], path)[0], ask(worker.port, path)[0]) == (200, 404), (role, path)
        assert ask(ports[role], "/operations/state")[0] == 404
        assert ask(worker.port, "/operations/state")[0] == 401
    for worker in workers.values():
        told = await asyncio.to_thread(state, worker.port)
        assert {(found["name"], *found["roles"]) for found in told["workers"]} == {
            (other.name, role) for role, other in workers.items()
        }
        assert {entry["owner"] for entry in told["partitions"]} == {workers["stream"].name}
        assert told["sink"]["workers"] == 1
        assert told["all_well"], told["problems"]
    for worker in workers.values():
        assert await worker.stop() == 0
