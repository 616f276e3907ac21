"""The platform's users that tests sign in as, and their tokens."""

from __future__ import annotations

import time
from typing import Final

import psycopg

from tutormax_streams.postgres.platform_tables import USERS_TABLE
from tutormax_streams.web.access import token_for

KEY: Final = "5f3b8f1d0c7e4a52b9d6e8f7a1c2d3e4"
STAFF, TUTOR, STRANGER = 1, 2, 404


def make(database: str) -> None:
    """Staff, and a tutor who is nobody's account until `link`."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(USERS_TABLE)
        connection.cursor().executemany(
            "INSERT INTO users (id, email, hashed_password, is_active, is_superuser, is_verified, full_name, roles,"
            " tutor_id) VALUES (%s, %s, 'x', true, false, true, %s, %s, NULL)",
            [
                (STAFF, "staff@example.org", "Grace", ["OPERATIONS_MANAGER"]),
                (TUTOR, "tutor@example.org", "Ada", ["TUTOR"]),
            ],
        )


def link(database: str, tutor_id: str) -> None:
    """The tutor's account is that of `tutor_id`, which exists by now."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE users SET tutor_id = %s WHERE id = %s", [tutor_id, TUTOR])


def token(user_id: int) -> str:
    """For an hour: longer than any test runs."""
    return token_for(user_id, KEY, expires_at=time.time() + 3600)
