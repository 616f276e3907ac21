"""Who asks, and what they may read.

1. A token is the platform's own: JWT, HS256 under `SECRET_KEY`, audience ``fastapi-users:auth``, subject = user id, with
   an expiry. Nothing else is accepted, and a refusal never says which of these was wrong.
2. Roles are not in the token: they stand in the platform's table `users`, and are remembered for `FRESH_SECONDS`. While
   PostgreSQL is away what was remembered counts on, but no longer than the platform's own tokens live. It is not asked
   again for `AWAY_SECONDS` then: a server that hangs would hold up each lookup.
3. Staff read everything, a tutor reads only itself, everybody else nothing.
4. A token that was verified is known again until it expires: a check costs as much as a tutor's windows. Vouches, too.
5. A worker that forwards a request vouches for who sent it, whom the other may not know: a JWT under the same key, with
   an audience of its own, so that none is ever taken for the other, good for `VOUCH_SECONDS`.
6. Without a key that could be secret, lookups are closed: whoever guesses it could sign in as anyone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import jwt

from agents.ports import SinkUnavailable
from tutormax_streams.web.patience import within

logger = logging.getLogger(__name__)

AUDIENCE: Final = "fastapi-users:auth"
VOUCHING: Final = "tutormax-streams:vouch"
ALGORITHM: Final = "HS256"
STAFF: Final = frozenset({"ADMIN", "OPERATIONS_MANAGER", "PEOPLE_OPS"})  # members' names, as the platform stores them
FRESH_SECONDS: Final = 30.0
AWAY_SECONDS: Final = 10.0
KNOWN_SECONDS: Final = 0.5  # to look up again who is remembered
LONGEST_SECONDS: Final = 30 * 60.0  # a token of the platform lives so long
MOST_REMEMBERED: Final = 10_000
VOUCH_SECONDS: Final = 5.0
LEAST_KEY_BYTES: Final = 16
PLACEHOLDERS: Final = ("change", "your-secret", "your_secret", "secret-key", "secret_key", "placeholder", "example")


class User(NamedTuple):
    """A row of `users`, as far as it matters here."""

    user_id: int
    full_name: str | None
    is_active: bool
    is_superuser: bool
    roles: tuple[str, ...]
    tutor_id: str | None

    @property
    def is_staff(self) -> bool:
        return self.is_superuser or not STAFF.isdisjoint(role.upper() for role in self.roles)

    def may_read(self, tutor_id: str) -> bool:
        """Whether this tutor's figures are for this user."""
        return self.is_staff or (self.tutor_id == tutor_id and "TUTOR" in {role.upper() for role in self.roles})


class Refused(Exception):
    """An answer without details: `status` 401 (sign in) or 403 (not for you)."""

    def __init__(self, status: int) -> None:
        super().__init__("Unauthorized" if status == 401 else "Forbidden")
        self.status = status


class Closed(Exception):
    """Nobody can be let in at present; the sentence says why."""


class Users(Protocol):
    async def __call__(self, user_id: int) -> User | None:
        """The row of a user, None if there is none. Raises `SinkUnavailable`."""
        ...


def weakness(secret_key: str | None) -> str | None:
    """Why a key will not do, as a sentence; None if it will."""
    if not secret_key:
        return "SECRET_KEY is not set: give it the value that the platform signs its tokens with"
    if any(word in secret_key.lower() for word in PLACEHOLDERS):
        return "SECRET_KEY is a placeholder that anyone can guess: set a random one, here and in the platform"
    if len(secret_key.encode()) < LEAST_KEY_BYTES:
        return f"SECRET_KEY has fewer than {LEAST_KEY_BYTES} bytes: set a longer one, here and in the platform"
    return None


class Access:
    """Lets callers in. `users` asks the platform's table; `monotonic` gives seconds."""

    def __init__(self, secret_key: str | None, users: Users, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.closed_because = weakness(secret_key)
        self._secret_key = secret_key or ""
        self._users = users
        self._monotonic = monotonic
        self._remembered: dict[int, tuple[float, User | None]] = {}
        self._away_until = -AWAY_SECONDS
        self._verified: dict[str, tuple[int, int]] = {}  # token -> user id, seconds since 1970 at which it expires
        self._given: dict[User, tuple[float, str]] = {}  # seconds since 1970 until when we vouch by the same vouch
        self._vouched: dict[str, tuple[float, User]] = {}  # vouch -> when it expires, whose it is

    async def user(self, token: str | None) -> User:
        """Whose token this is. Raises `Refused`, or `Closed` when that cannot be found out."""
        if self.closed_because is not None:
            raise Closed(self.closed_because)
        user = await self._row(self._subject(token))
        if user is None or not user.is_active:
            raise Refused(401)
        return user

    def _subject(self, token: str | None) -> int:
        if not token:
            raise Refused(401)
        known = self._verified.get(token)
        if known is not None and time.time() < known[1]:
            return known[0]
        try:
            claims = self._claims(token, AUDIENCE)
            subject, expires_at = int(claims["sub"]), int(claims["exp"])
        except ValueError:
            raise Refused(401) from None
        if len(self._verified) >= MOST_REMEMBERED:
            self._verified.clear()
        self._verified[token] = subject, expires_at
        return subject

    def _claims(self, token: str, audience: str) -> dict[str, Any]:
        """What a token says. Raises ValueError unless it was signed with our key for this audience and has not expired."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret_key,
                algorithms=[ALGORITHM],
                audience=audience,
                options={"require": ["exp", "aud", "sub"]},
            )
        except (jwt.InvalidTokenError, RecursionError) as wrong:  # the last: PyJWT 2.9, nested header
            raise ValueError from wrong
        return claims

    def vouch(self, user: User) -> str:
        """For another worker: this user was let in here, a moment ago."""
        now = time.time()
        known = self._given.get(user)
        if known is not None and now < known[0]:
            return known[1]
        claims = {
            "sub": str(user.user_id),
            "aud": VOUCHING,
            "exp": int(now + VOUCH_SECONDS),
            "superuser": user.is_superuser,
            "roles": user.roles,
            "tutor_id": user.tutor_id,
        }
        vouch = jwt.encode(claims, self._secret_key, algorithm=ALGORITHM)
        if len(self._given) >= MOST_REMEMBERED:
            self._given.clear()
        self._given[user] = now + VOUCH_SECONDS / 2, vouch
        return vouch

    def vouched(self, vouch: str | None) -> User | None:
        """Whom another worker vouches for, without a name; None if that is not what this is."""
        if not vouch or self.closed_because is not None:
            return None
        known = self._vouched.get(vouch)
        if known is not None and time.time() < known[0]:
            return known[1]
        try:
            said = self._claims(vouch, VOUCHING)
            user = User(int(said["sub"]), None, True, said["superuser"], tuple(said["roles"]), said["tutor_id"])
        except (ValueError, KeyError):  # the latter: of another version
            return None
        if len(self._vouched) >= MOST_REMEMBERED:
            self._vouched.clear()
        self._vouched[vouch] = float(said["exp"]), user
        return user

    async def _row(self, user_id: int) -> User | None:
        now = self._monotonic()
        known = self._remembered.get(user_id)
        if known is not None and now - known[0] < FRESH_SECONDS:
            return known[1]
        still_counts = known is not None and now - known[0] < LONGEST_SECONDS
        if known is not None and still_counts and now < self._away_until:
            return known[1]
        try:
            user = await (within(KNOWN_SECONDS, self._users(user_id)) if still_counts else self._users(user_id))
        except (SinkUnavailable, TimeoutError) as away:
            self._away_until = self._monotonic() + AWAY_SECONDS
            if known is not None and still_counts:
                return known[1]
            logger.warning("users cannot be looked up: %s", away)
            raise Closed("users cannot be looked up, PostgreSQL does not answer") from away
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[user_id] = (now, user)
        return user


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def token_for(user_id: int, secret_key: str, *, expires_at: float) -> str:
    """A token as the platform issues them, for the demo and for tests. `expires_at` in seconds since 1970."""
    return jwt.encode({"sub": str(user_id), "aud": [AUDIENCE], "exp": int(expires_at)}, secret_key, algorithm=ALGORITHM)
