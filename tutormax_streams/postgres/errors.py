"""Whose fault a database error is: a row's own, a clash that passes by itself, the infrastructure's, or ours."""

from __future__ import annotations

import enum

import psycopg
from psycopg import errors

from agents.ports import SinkUnavailable

__all__ = ["VALUE_ERRORS", "Fault", "SinkUnavailable", "fault", "reason", "sentence"]


class Fault(enum.Enum):
    """Who has to act on an error."""

    ROW = "row"  # this row can never be written: refuse it, write its neighbours
    CLASH = "clash"  # two writers met: the same transaction succeeds when repeated
    INFRASTRUCTURE = "infrastructure"  # hold and retry, whatever the rows
    BUG = "bug"  # a statement of ours is wrong: stop visibly


# SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_ROW_CLASSES = frozenset({"22", "23", "44", "54", "P0"})  # data, integrity, check option, limits, raised by a trigger
_CLASHES = frozenset({"40001", "40P01"})  # serialisation failure, deadlock
_BUG_CLASSES = frozenset({"21", "26", "34", "42"})
# Of class 42 what an operator can mend: missing tables, columns, types, functions and rights.
_MENDABLE = frozenset({"42P01", "42703", "42704", "42883", "42501", "42P10"})

# What a value raises while psycopg puts it on the wire, before the server sees it: lone surrogates, integers beyond
# the column, values of a wrong type.
VALUE_ERRORS = (ValueError, TypeError, OverflowError)


def fault(error: BaseException) -> Fault:
    """Classify what a database call raised."""
    if isinstance(error, VALUE_ERRORS):
        return Fault.ROW
    if not isinstance(error, psycopg.Error):
        return Fault.INFRASTRUCTURE if isinstance(error, OSError) else Fault.BUG
    state = error.sqlstate
    if state is None:
        # Raised by the client: a value it could not encode, or the connection; the rest is misuse.
        if isinstance(error, psycopg.DataError):
            return Fault.ROW
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return Fault.INFRASTRUCTURE if lost else Fault.BUG
    if state in _CLASHES:
        return Fault.CLASH
    if state[:2] in _ROW_CLASSES:
        return Fault.ROW
    if state[:2] in _BUG_CLASSES and state not in _MENDABLE:
        return Fault.BUG
    return Fault.INFRASTRUCTURE


def reason(error: BaseException) -> tuple[str, str]:
    """Code and sentence for a refused row. Never quotes the row: server messages of these classes may, so the
    sentence is made of the error's kind, column and constraint."""
    if isinstance(error, errors.UniqueViolation):
        return "duplicate", f"another row already holds this value ({_constraint(error)})"
    if isinstance(error, psycopg.Error) and error.sqlstate:
        column = error.diag.column_name
        where = f" in column {column}" if column else f" ({_constraint(error)})" if error.diag.constraint_name else ""
        kind = type(error).__name__
        return "refused_by_database", f"PostgreSQL refuses a value{where}: {kind} ({error.sqlstate})"
    return "unstorable", f"a value cannot be sent to PostgreSQL: {type(error).__name__}"


def sentence(error: BaseException) -> str:
    """One line of an infrastructure error for logs and health."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _constraint(error: psycopg.Error) -> str:
    return f"constraint {error.diag.constraint_name}" if error.diag.constraint_name else "unnamed constraint"
