"""The verdict: what PostgreSQL and the dead-letter topic hold, against the oracle and the poison.

Every function answers with differences, which are sentences; an empty list is a right result.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from tests.oracle import Oracle, Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS: dict[LiteralString, str] = {
    "tutors": "tutor_id",
    "students": "student_id",
    "sessions": "session_id",
    "student_feedback": "feedback_id",
    "tutor_events": "event_id",
}
ANNOUNCED = {
    "tutors": ("tutor", "updated_at"),
    "sessions": ("session", "updated_at"),
    "student_feedback": ("feedback", "submitted_at"),
    "tutor_events": ("tutor_event", "event_timestamp"),
}
"""By table: kind of the announcement, and the column that says which version."""
MOST_SHOWN = 8

Position = tuple[str, int, int]  # short topic name, partition, offset


class Difference(str):
    """A sentence about something that is not as it must be."""

    __slots__ = ()


class Lost(Difference):
    """Something is not there."""

    __slots__ = ()


class Doubled(Difference):
    """Something is there that should not be, or twice."""

    __slots__ = ()


class Wrong(Difference):
    """Something is there, but not as it should be."""

    __slots__ = ()


def instant_us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def rows(url: str, query: LiteralString, values: Sequence[Any] = ()) -> list[Row]:
    """What a query answers, instants as int µs."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        found = connection.execute(query, values).fetchall()
    return [{key: instant_us(v) if isinstance(v, datetime) else v for key, v in row.items()} for row in found]


def wrong_tables(url: str, oracle: Oracle) -> list[Difference]:
    """The platform's four tables of events, and the students made up for them."""
    differences: list[Difference] = []
    for table, expected in oracle.tables().items():
        held = {row[KEYS[table]]: row for row in rows(url, f"SELECT * FROM {table}")}
        if table == "students":
            held = {key: row for key, row in held.items() if key in expected}  # a writer may have made up more
        differences += _unlike(table, held, expected)
    return differences


def wrong_metrics(url: str, oracle: Oracle, newer_than_us: int = 0, mode: str = "normalized") -> list[Difference]:
    """Three current rows of every tutor, each right at its own calculation_date, which is at least `newer_than_us`."""
    held: dict[str, dict[str, Row]] = {}
    for row in rows(url, "SELECT * FROM tutor_performance_metrics"):
        of_tutor = held.setdefault(row["tutor_id"], {})
        if row["window"] in of_tutor:
            return [Doubled(f"two rows of {row['tutor_id']} for {row['window']}")]
        of_tutor[row["window"]] = row
    differences = _unlike(
        "metrics of", {tutor_id: {} for tutor_id in held}, {tutor_id: {} for tutor_id in oracle.tutors}
    )
    for tutor_id in held.keys() & oracle.tutors.keys():
        as_of = {row["calculation_date"] for row in held[tutor_id].values()}
        if len(as_of) != 1:
            differences.append(Wrong(f"the rows of {tutor_id} are of different instants"))
            continue
        (t_us,) = as_of
        if t_us < newer_than_us:
            differences.append(
                Lost(f"the rows of {tutor_id} were last calculated {(newer_than_us - t_us) / 1e6} s too early")
            )
        differences += _unlike(f"{tutor_id} at {t_us}", held[tutor_id], oracle.stored_metrics(tutor_id, t_us, mode))
    return differences


def wrong_announcements(announced: Iterable[Row], oracle: Oracle) -> list[Difference]:
    """`record.persisted` of every row, in the version that stands; more of them do no harm. `announced` are values."""
    told = {(row["kind"], row["id"], row["version_time"]) for row in announced}
    differences: list[Difference] = []
    tables = oracle.tables()
    for table, (kind, version) in ANNOUNCED.items():
        for id_, row in tables[table].items():
            at = EPOCH + timedelta(microseconds=row[version])
            if (kind, id_, f"{at:%Y-%m-%dT%H:%M:%S.%f}Z") not in told:
                differences.append(Lost(f"nobody was told of {kind} {id_} as of {at}"))
    return differences


def untold_alerts(url: str, told: Iterable[Row]) -> list[Difference]:
    """Alerts that wait; numbers that are missing among those that were told; a number or a change that was told in two
    ways; and what they fold to, where that is not what stands announced. One that came twice does no harm."""
    waiting = rows(url, "SELECT tutor_id, sequence FROM tutormax_streams.alert_outbox")
    differences: list[Difference] = [Lost(f"alert {row['sequence']} of {row['tutor_id']} waits") for row in waiting]
    heard: dict[str, dict[int, Row]] = {}
    for alert in told:
        tutor_id, number = alert["tutor_id"], alert["sequence"]
        if heard.setdefault(tutor_id, {}).setdefault(number, alert) != alert:
            differences.append(Doubled(f"alert {number} of {tutor_id} was told in two ways"))
    announced = {
        row["tutor_id"]: json.loads(row["payload"])
        for row in rows(url, "SELECT tutor_id, payload FROM tutormax_streams.announced")
    }
    for tutor_id in heard.keys() | announced.keys():
        differences += unlike_announced(tutor_id, heard.get(tutor_id, {}), announced.get(tutor_id))
    return differences


def unlike_announced(tutor_id: str, heard: Mapping[int, Row], announced: Row | None) -> list[Difference]:
    """Of one tutor, `heard` by number."""
    if announced is None:
        return [Lost(f"{len(heard)} alerts of {tutor_id} were told, and none stands announced")]
    most = announced.get("sequence", 0)
    differences: list[Difference] = [
        Lost(f"nobody was told of alert {number} of {tutor_id}") for number in set(range(1, most + 1)) - heard.keys()
    ]
    differences += [
        Doubled(f"alert {number} of {tutor_id} was told and does not stand") for number in heard if number > most
    ]
    if differences:
        return differences  # what they fold to says nothing new
    tier: str | None = None
    standing: dict[str, Row] = {}
    changes: set[str] = set()
    for number, alert in sorted(heard.items()):
        what = f"alert {number} of {tutor_id} ({alert['type']})"
        if alert["id"] != f"{tutor_id}/{alert['type']}/{number}":
            differences.append(Wrong(f"{what} is called {alert['id']}"))
        change = json.dumps(
            {name: value for name, value in alert.items() if name not in ("id", "sequence")}, sort_keys=True
        )
        # What is raised, cleared and raised again may look the same, while a clock stands: for that there is the folding.
        if change in changes and alert["type"] in ("first_session.poor", "reschedule.pattern"):
            differences.append(Doubled(f"{what} tells what was told under another id"))
        changes.add(change)
        if alert["type"] == "tier.changed":
            if alert["old_tier"] != (tier or alert["old_tier"]) or alert["new_tier"] == alert["old_tier"]:
                differences.append(Wrong(f"{what}: from {alert['old_tier']} to {alert['new_tier']}, and {tier} stood"))
            tier = alert["new_tier"]
        elif alert["type"] in ("alert.raised", "alert.cleared"):
            stood = standing.pop(alert["figure"], {}).get("severity")
            if alert["old_severity"] != stood or alert.get("severity") == stood:
                differences.append(Wrong(f"{what}: {alert['figure']} was {alert['old_severity']}, and {stood} stood"))
            if alert["type"] == "alert.raised":
                standing[alert["figure"]] = {**alert, "tutor_name": None}
    stands = {alert["figure"]: {"tutor_name": None, **alert} for alert in announced.get("standing", ())}
    if stands != standing:
        differences.append(Wrong(f"alerts of {tutor_id} that stand: {stands}; that were told: {standing}"))
    levels = sorted(alert["severity"] for alert in standing.values())
    if levels != sorted(announced.get("levels", {}).values()):
        differences.append(Wrong(f"levels of {tutor_id}: {announced.get('levels')}; that were told: {levels}"))
    if tier not in (None, announced.get("tier")):
        differences.append(Wrong(f"the tier of {tutor_id}: {announced.get('tier')}; that was told: {tier}"))
    return differences


def wrong_letters(letters: Mapping[Position, bytes], poison: Mapping[Position, bytes]) -> list[Difference]:
    """Dead letters by source position: neither more nor fewer than the poison, each with its bytes intact."""
    differences: list[Difference] = [
        Lost(f"no dead letter for {place}: {poison[place][:80]!r}") for place in poison.keys() - letters.keys()
    ]
    differences += [
        Doubled(f"a dead letter for {place}: {letters[place][:80]!r}") for place in letters.keys() - poison.keys()
    ]
    differences += [
        Wrong(f"the dead letter of {place} holds {letters[place][:80]!r}, not {poison[place][:80]!r}")
        for place in letters.keys() & poison.keys()
        if letters[place] != poison[place]
    ]
    return differences


def _unlike(what: str, held: Mapping[str, Row], expected: Mapping[str, Row]) -> list[Difference]:
    differences: list[Difference] = [Lost(f"{what} {key} is missing") for key in expected.keys() - held.keys()]
    differences += [Doubled(f"{what} {key} should not be there") for key in held.keys() - expected.keys()]
    for key in held.keys() & expected.keys():
        differences += [
            Wrong(f"{what} {key}: {column} is {held[key].get(column)!r}, expected {value!r}")
            for column, value in expected[key].items()
            if held[key].get(column) != value
        ]
    return differences


def shown(differences: Iterable[str]) -> str:
    """The first few, and how many there are of each kind of sentence."""
    found = sorted(differences)
    kinds = Counter(sentence.split(" ", 1)[0] for sentence in found)
    return "\n".join([f"{len(found)} differences ({dict(kinds)}):", *found[:MOST_SHOWN]])
