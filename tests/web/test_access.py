"""Who is let in: tokens as the platform makes them, and everything that only looks like one."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

import jwt
import pytest

from agents.ports import SinkUnavailable
from tutormax_streams.web.access import (
    AWAY_SECONDS,
    FRESH_SECONDS,
    LONGEST_SECONDS,
    VOUCH_SECONDS,
    VOUCHING,
    Access,
    Closed,
    Refused,
    User,
    bearer,
    token_for,
)

KEY = 2 * "0f4c7be02b9d4d3aa1f0c2d5e6b7a899"  # as long as any of the algorithms wants
TUTOR = User(7, "Ada", is_active=True, is_superuser=False, roles=("TUTOR",), tutor_id="t1")
STAFF = User(8, "Grace", is_active=True, is_superuser=False, roles=("OPERATIONS_MANAGER",), tutor_id=None)
GONE = User(9, "Eve", is_active=False, is_superuser=True, roles=("ADMIN",), tutor_id=None)


class Users:
    def __init__(self) -> None:
        self.rows = {user.user_id: user for user in (TUTOR, STAFF, GONE)}
        self.asked = 0
        self.away = False

    async def __call__(self, user_id: int) -> User | None:
        self.asked += 1
        if self.away:
            raise SinkUnavailable("the server is away")
        return self.rows.get(user_id)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def users() -> Users:
    return Users()


def access(users: Users, key: str | None = KEY, clock: Clock | None = None) -> Access:
    return Access(key, users, clock or Clock())


def signed(claims: dict[str, Any], key: str = KEY, algorithm: str = "HS256") -> str:
    later = int(time.time()) + 86_400  # tokens are made when tests are collected, and some run long after
    wanted = {"sub": "7", "aud": "fastapi-users:auth", "exp": later, **claims}
    return jwt.encode({name: value for name, value in wanted.items() if value is not None}, key, algorithm=algorithm)


def unsigned() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"sub": "8", "aud": "fastapi-users:auth", "exp": int(time.time()) + 86_400}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


async def test_the_platforms_token_lets_in(users: Users):
    assert await access(users).user(signed({})) == TUTOR
    assert await access(users).user(signed({"aud": ["fastapi-users:auth"]})) == TUTOR
    assert await access(users).user(token_for(8, KEY, expires_at=time.time() + 5)) == STAFF


async def test_a_token_is_verified_once_and_known_until_it_expires(users: Users, monkeypatch: pytest.MonkeyPatch):
    asked = access(users)
    verified: list[str] = []
    decode = jwt.decode

    def counted(token: str, *arguments: Any, **named: Any) -> Any:
        verified.append(token)
        return decode(token, *arguments, **named)

    monkeypatch.setattr(jwt, "decode", counted)
    token = token_for(8, KEY, expires_at=time.time() + 100)
    assert [await asked.user(token) for _ in range(3)] == [STAFF] * 3
    assert verified == [token]
    head, claims, signature = token.split(".")
    for forged in (f"{head}.{claims}.{signature[::-1]}", f"{head}.{claims}", token + " "):
        with pytest.raises(Refused):
            await asked.user(forged)
    expired = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: expired)
    verified.clear()
    await asked.user(token)
    assert verified == [token], "what has expired since is not known any more"


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "rubbish",
        "a.b.c",
        unsigned(),
        f"{base64.urlsafe_b64encode(b'[' * 100_000).decode()}.b.c",
        signed({"exp": int(time.time()) - 1}),
        signed({"exp": None}),
        signed({"aud": "fastapi-users:reset"}),
        signed({"aud": None}),
        signed({"sub": None}),
        signed({"sub": "not a number"}),
        signed({"sub": "404"}),
        signed({"sub": "9"}),
        signed({}, key="another key of some thirty bytes"),
        signed({}, algorithm="HS512"),
    ],
    ids=[
        "none", "empty", "rubbish", "three parts", "alg none", "nested", "expired", "no expiry", "wrong audience",
        "no audience", "no subject", "odd subject", "unknown user", "inactive user", "forged", "another algorithm",
    ],
)  # fmt: skip
async def test_everything_else_is_refused_without_a_reason(users: Users, token: str | None):
    with pytest.raises(Refused) as refused:
        await access(users).user(token)
    assert (refused.value.status, str(refused.value)) == (401, "Unauthorized")


@pytest.mark.parametrize(
    "key", [None, "", "short", "your-secret-key-here-change-in-production", "CHANGE_ME_CHANGE_ME_CHANGE_ME"]
)
async def test_without_a_secret_nobody_is_let_in(users: Users, key: str | None):
    with pytest.raises(Closed, match="SECRET_KEY"):
        await access(users, key).user(signed({}))
    assert not users.asked


def test_a_tutor_reads_itself_and_staff_everyone():
    student = TUTOR._replace(roles=("STUDENT",), tutor_id=None)
    assert [TUTOR.may_read("t1"), TUTOR.may_read("t2")] == [True, False]
    assert [STAFF.may_read("t1"), STAFF.may_read("t2")] == [True, True]
    assert [student.may_read("t1"), student._replace(tutor_id="t1").may_read("t1")] == [False, False]
    assert student._replace(is_superuser=True).may_read("t1")
    assert TUTOR._replace(roles=("people_ops",)).is_staff, "values and names alike"
    for role in ("ADMIN", "OPERATIONS_MANAGER", "PEOPLE_OPS"):
        assert student._replace(roles=(role,)).may_read("t2"), role


async def test_rows_are_remembered_for_a_while_and_longer_only_while_the_database_is_away(users: Users):
    clock = Clock()
    door = access(users, clock=clock)
    token = signed({})
    await door.user(token)
    users.rows[7] = TUTOR._replace(is_active=False)
    assert await door.user(token) == TUTOR
    assert users.asked == 1
    clock.now += FRESH_SECONDS
    with pytest.raises(Refused):
        await door.user(token)
    users.rows[7], clock.now = TUTOR, clock.now + FRESH_SECONDS
    await door.user(token)
    users.away, clock.now = True, clock.now + LONGEST_SECONDS - 1
    assert await door.user(token) == TUTOR
    clock.now += 1
    with pytest.raises(Closed, match="PostgreSQL does not answer") as closed:
        await door.user(token)
    assert "server is away" not in str(closed.value), "what the server says names hosts and users: that is for the log"


async def test_a_database_that_hangs_is_not_asked_for_each_request(users: Users):
    clock = Clock()
    door = access(users, clock=clock)
    token = signed({})
    await door.user(token)
    users.away, clock.now = True, clock.now + FRESH_SECONDS
    asked = users.asked
    for _ in range(5):
        assert await door.user(token) == TUTOR
    assert users.asked == asked + 1
    clock.now += AWAY_SECONDS
    assert await door.user(token) == TUTOR
    assert users.asked == asked + 2, "and asked again after a while"
    users.away, clock.now = False, clock.now + AWAY_SECONDS
    users.rows[7] = TUTOR._replace(is_active=False)
    with pytest.raises(Refused):
        await door.user(token)


async def test_a_database_that_hangs_holds_nobody_up_who_is_remembered(users: Users):
    clock = Clock()
    slow = asyncio.Event()

    async def hangs(user_id: int) -> User | None:
        if users.away:
            await slow.wait()
        return await users(user_id)

    door = Access(KEY, hangs, clock)
    token = signed({})
    await door.user(token)
    users.away, clock.now = True, clock.now + FRESH_SECONDS
    assert await asyncio.wait_for(door.user(token), 3) == TUTOR
    slow.set()


async def test_a_worker_vouches_to_another_for_a_while_for_who_was_let_in(
    users: Users, monkeypatch: pytest.MonkeyPatch
):
    one, other = access(users), access(users)
    users.away = True
    for user in (STAFF, TUTOR):
        vouch = one.vouch(user)
        assert other.vouched(vouch) == user._replace(full_name=None), "which is nobody's business there"
        with pytest.raises(Refused):
            await other.user(vouch)
    expired = time.time() + VOUCH_SECONDS
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: expired)
        later.setattr(jwt.api_jwt, "datetime", Later)
        assert other.vouched(vouch) is None, "remembered, and no longer than it is good"
        renewed = one.vouch(TUTOR)
        assert renewed != vouch
        assert other.vouched(renewed) == TUTOR._replace(full_name=None)


async def test_a_vouch_is_made_and_verified_once_for_many_requests(users: Users, monkeypatch: pytest.MonkeyPatch):
    one, other = access(users), access(users)
    vouch = one.vouch(STAFF)
    assert other.vouched(vouch) is not None
    monkeypatch.setattr(jwt, "decode", None)
    monkeypatch.setattr(jwt, "encode", None)
    assert one.vouch(STAFF) == vouch
    assert other.vouched(vouch) == STAFF._replace(full_name=None)


class Later(datetime):
    """By which PyJWT knows the time, ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=VOUCH_SECONDS)


@pytest.mark.parametrize(
    "vouch",
    [
        None,
        "",
        "a.b.c",
        unsigned(),
        signed({}),
        f"{base64.urlsafe_b64encode(b'[' * 100_000).decode()}.b.c",
        signed({"aud": VOUCHING}),
        Access(2 * KEY, Users()).vouch(STAFF),
    ],
    ids=["none", "empty", "three parts", "alg none", "a token", "nested", "of another version", "forged"],
)
def test_what_is_no_vouch_vouches_for_nobody(users: Users, vouch: str | None):
    assert access(users).vouched(vouch) is None
    assert access(users, "short").vouched(access(users).vouch(STAFF)) is None


def test_the_header():
    assert [bearer(text) for text in ("Bearer x", "bearer  x ", "Basic x", "", None)] == ["x", "x", None, None, None]
