"""What a real worker's environment and web server make of access: origins, headers of every answer, the size of bodies."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPResponse

import pytest

from tests.flow.conftest import ORIGIN
from tests.flow.processes import Worker
from tests.flow.users import STAFF, token
from tutormax_streams.embedded.server import HOST

FOREIGN = "https://evil.example.org"
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
KEPT = {"Cache-Control": "no-cache"}  # the page itself holds no figures


def answer(worker: Worker, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> HTTPResponse:
    """Of a connection of its own; what comes behind the headers is left unread, since `/events` never ends."""
    connection = HTTPConnection(HOST, worker.port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers)
        return connection.getresponse()
    finally:
        connection.close()


def as_staff() -> dict[str, str]:
    return {"Authorization": f"Bearer {token(STAFF)}"}


def test_the_origins_of_the_setting_may_ask_and_no_others(worker: Worker):
    asks = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    for origin, status, named in ((ORIGIN, 204, ORIGIN), (FOREIGN, 401, None)):
        preflight = answer(worker, "OPTIONS", "/tutors", {"Origin": origin, **asks})
        assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (status, named)
        told = answer(worker, "GET", "/whoami", {"Origin": origin, **as_staff()})
        assert (told.status, told.headers["Access-Control-Allow-Origin"]) == (200, named)


@pytest.mark.parametrize(
    ("path", "is_signed_in", "status"),
    [
        ("/whoami", True, 200),
        ("/dashboard", False, 200),
        ("/livez", False, 200),
        ("/whoami", False, 401),
        ("/tutors/nobody/metrics", True, 404),
        ("/nowhere", True, 404),
        ("/events", True, 200),
    ],
)
def test_every_answer_tells_browsers_to_be_careful(worker: Worker, path: str, is_signed_in: bool, status: int):
    told = answer(worker, "GET", path, as_staff() if is_signed_in else {})
    assert told.status == status
    assert {name: told.headers[name] for name in SAFE} == SAFE | (KEPT if path == "/dashboard" else {})
    assert "default-src 'none'" in told.headers["Content-Security-Policy"]


def test_a_body_beyond_64_kib_is_refused(worker: Worker):
    assert answer(worker, "POST", "/session", as_staff(), b"x" * (64 << 10)).status == 204
    assert answer(worker, "POST", "/session", as_staff(), b"x" * (65 << 10)).status == 413
