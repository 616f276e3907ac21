"""Health: readiness comes and goes, a start is over once; on the web port or on one of its own."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tutormax_streams import startup
from tutormax_streams.embedded.server import HOST, free_port
from tutormax_streams.refused import CONFIGURATION, Refused
from tutormax_streams.settings import Settings
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web.guard import HEADERS
from tutormax_streams.web.health import Health, HealthServer, probes

PATHS = ("/livez", "/readyz", "/startupz", "/metrics", "/version")


class Role:
    """What stands in a role's way."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)

    def __call__(self) -> list[str]:
        return self.reasons


def test_a_start_is_over_once_each_role_has_come_through_whenever_that_was():
    health, stream, sink = Health(), Role("recovering"), Role("not joined")
    for name, role in (("stream", stream), ("sink", sink)):
        health.watch(name, role)
        health.watch_start(name, role)
    health.look(0.0)
    assert health.startup() == {
        "started": False,
        "roles": {
            "stream": {"started": False, "reasons": ["recovering"]},
            "sink": {"started": False, "reasons": ["not joined"]},
        },
    }
    stream.reasons = []
    health.look(1.0)  # nobody asks meanwhile
    stream.reasons, sink.reasons = ["recovering again"], []
    assert health.startup()["started"], "not at the same moment, but each once"
    sink.reasons = ["PostgreSQL is away"]
    assert health.startup() == {
        "started": True,
        "roles": {"stream": {"started": True, "reasons": []}, "sink": {"started": True, "reasons": []}},
    }
    assert not health.report()["ready"]


def test_how_long_a_role_has_not_been_ready():
    health, role = Health(), Role("PostgreSQL is away")
    health.watch("sink", role)
    assert health.unready_seconds("sink", 5.0) is None, "nobody has looked"
    health.look(5.0)
    health.look(6.0)
    assert health.unready_seconds("sink", 8.5) == 3.5
    role.reasons = []
    health.look(9.0)
    assert health.unready_seconds("sink", 10.0) is None
    role.reasons = ["again"]
    health.look(11.0)
    assert health.unready_seconds("sink", 12.0) == 1.0


async def test_what_the_endpoints_answer():
    health, role, refreshed = Health(), Role("recovering"), []
    health.watch("stream", role)
    health.watch_start("stream", role)
    app = web.Application()
    served = probes(health, Telemetry(), lambda: refreshed.append(1))
    app.add_routes([web.get(path, handle) for path, handle in served.items()])
    async with TestClient(TestServer(app)) as client:
        assert tuple(served) == PATHS
        assert {path: (await client.get(path)).status for path in PATHS} == {
            "/livez": 200, "/readyz": 503, "/startupz": 503, "/metrics": 200, "/version": 200,
        }  # fmt: skip
        assert refreshed == [1]
        assert (await (await client.get("/readyz")).json())["roles"]["stream"]["reasons"] == ["recovering"]
        role.reasons = []
        assert [(await client.get(path)).status for path in ("/readyz", "/startupz")] == [200, 200]
        role.reasons = ["recovering"]
        assert [(await client.get(path)).status for path in ("/readyz", "/startupz")] == [503, 200]


async def test_a_probe_may_ask_about_one_role():
    """Lookups must not go away because PostgreSQL did."""
    health = Health()
    health.watch("stream", Role())
    health.watch("sink", Role("PostgreSQL is away"))
    app = web.Application()
    app.add_routes([web.get(path, handle) for path, handle in probes(health, Telemetry(), lambda: None).items()])
    async with TestClient(TestServer(app)) as client:
        asked = {query: await client.get(f"/readyz{query}") for query in ("", "?role=stream", "?role=sink", "?role=x")}
        assert [answer.status for answer in asked.values()] == [503, 200, 503, 404]
        assert await asked["?role=stream"].json() == {
            "ready": True,
            "roles": {"stream": {"ready": True, "reasons": []}},
        }
        assert "no role 'x'" in (await asked["?role=x"].json())["roles"]["x"]["reasons"][0]


async def test_a_server_of_their_own_has_nothing_else_and_frees_its_port():
    port = free_port()
    server = HealthServer(probes(Health(), Telemetry(), lambda: None), HOST, port)
    async with server, aiohttp.ClientSession() as client:
        for path, status in (*((path, 200) for path in PATHS), ("/tutors", 404), ("/operations/state", 404)):
            async with client.get(f"http://{HOST}:{port}{path}") as answer:
                assert answer.status == status, path
                assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))


def test_a_port_that_is_taken_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(web_host=HOST, web_port=free_port(), health_port=port, store="memory")
        with pytest.raises(Refused, match=f"health and metrics .*{port}.*TUTORMAX_HEALTH_PORT") as refused:
            startup.check_machine(settings)
    assert refused.value.code == CONFIGURATION


def test_both_ports_must_differ():
    with pytest.raises(ValueError, match="must differ from TUTORMAX_WEB_PORT"):
        Settings(web_port=6066, health_port=6066)
