"""The platform's users that tests sign in as, and their tokens."""

from __future__ import annotations

import time
from typing import Final

import psycopg

from tutormax_streams.postgres.platform_tables import USERS_TABLE
from tutormax_streams.web.access import token_for

KEY: Final = "5f3b8f1d0c7e4a52b9d6e8f7a1c2d3e4"
STAFF, TUTOR, MANAGER, STRANGER = 1, 2, 3, 404

given = set[str]()
"""Every token of this process."""

FACTORS: Final = '{"no_show_rate_30d": {"importance": 0.4, "value": 0.25}}'
PREDICTIONS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS churn_predictions (
    prediction_id varchar(50) PRIMARY KEY,
    tutor_id varchar(50) NOT NULL REFERENCES tutors ON DELETE CASCADE,
    prediction_date timestamptz NOT NULL,
    churn_score integer NOT NULL,
    risk_level varchar(20) NOT NULL,
    window_1day_probability float8,
    window_7day_probability float8,
    window_30day_probability float8,
    window_90day_probability float8,
    contributing_factors jsonb,
    model_version varchar(50) NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
)
"""


def make(database: str) -> None:
    """Staff, two of them, and a tutor who is nobody's account until `link`."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(USERS_TABLE)
        connection.cursor().executemany(
            "INSERT INTO users (id, email, hashed_password, is_active, is_superuser, is_verified, full_name, roles,"
            " tutor_id) VALUES (%s, %s, 'x', true, false, true, %s, %s, NULL)",
            [
                (STAFF, "staff@example.org", "Grace", ["OPERATIONS_MANAGER"]),
                (TUTOR, "tutor@example.org", "Ada", ["TUTOR"]),
                (MANAGER, "manager@example.org", "Barbara", ["PEOPLE_OPS"]),
            ],
        )


def link(database: str, tutor_id: str) -> None:
    """The tutor's account is that of `tutor_id`, which exists by now."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE users SET tutor_id = %s WHERE id = %s", [tutor_id, TUTOR])


def predict(database: str, tutor_id: str, score: int, level: str) -> None:
    """A prediction as the platform's nightly job stores it, a day after an older one of the same tutor."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(PREDICTIONS_TABLE)
        connection.cursor().executemany(
            "INSERT INTO churn_predictions VALUES (%s, %s, %s, %s, %s, NULL, NULL, %s, NULL, %s, '1.0', now(), now())",
            [
                (f"pred_{tutor_id}_old", tutor_id, "2025-11-01T00:00:00Z", 1, "LOW", 0.01, None),
                (f"pred_{tutor_id}_new", tutor_id, "2025-11-02T00:00:00Z", score, level, score / 100, FACTORS),
            ],
        )


def token(user_id: int) -> str:
    """For an hour: longer than any test runs."""
    made = token_for(user_id, KEY, expires_at=time.time() + 3600)
    given.add(made)
    return made
