"""What a database error becomes in a dead letter: a code that the tables of reasons explain, and nothing of the row."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from models.fates import LATER_REASONS
from tutormax_streams.postgres.errors import Fault, fault, reason


@pytest.mark.parametrize(
    "error",
    [
        errors.UniqueViolation("Key (email)=(ada@example.net) already exists"),
        errors.ForeignKeyViolation("Key (tutor_id)=(ada) is not present"),
        errors.CheckViolation("Failing row contains (ada)"),
        errors.NotNullViolation("Failing row contains (ada)"),
        errors.StringDataRightTruncation("value too long: ada"),
        errors.NumericValueOutOfRange("ada"),
        psycopg.DataError("PostgreSQL text fields cannot contain NUL: ada"),
        UnicodeEncodeError("utf-8", "ada", 0, 1, "surrogates not allowed"),
        OverflowError("ada"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_code_is_explained_and_quotes_nothing(error: Exception):
    assert fault(error) is Fault.ROW
    code, detail = reason(error)
    assert code in LATER_REASONS
    assert "ada" not in detail
