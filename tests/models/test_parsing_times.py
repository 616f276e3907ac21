"""Times: every form, every zone, both ends of the calendar, and how far ahead of now each may lie."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from models.events import Session, Tutor
from models.parsing import Accepted, Parser, Rejected
from models.times import EARLIEST_US, LATEST_US, NEVER_US, instant
from tests.models.parsing_examples import NOW_US, accepted, payload, rejected

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON_US = 1_795_435_200_000_000  # 2026-11-23T12:00:00Z
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
LISBON = ZoneInfo("Europe/Lisbon")
NEW_YORK = ZoneInfo("America/New_York")
FAR_EAST = timezone(timedelta(hours=23, minutes=59))
FAR_WEST = timezone(-timedelta(hours=23, minutes=59))


def written(at_us: int) -> str:
    return (EPOCH + timedelta(microseconds=at_us)).isoformat()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T12:00:00", (NOON_US, 0)),
        ("2026-11-23 12:00:00", (NOON_US, 0)),
        ("2026-11-23T12:00", (NOON_US, 0)),
        ("2026-11-23T12:00:00Z", (NOON_US, 0)),
        ("2026-11-23T12:00:00+00:00", (NOON_US, 0)),
        ("2026-11-23T17:30:00+05:30", (NOON_US, 19_800)),
        ("2026-11-23 04:00:00-0800", (NOON_US, -28_800)),
        ("2026-11-23T12:00:01+00:00:01", (NOON_US, 1)),
        ("20261123T120000Z", (NOON_US, 0)),
        ("2026-11-23", (NOON_US - DAY_US // 2, 0)),
        ("2026-11-23T12:00:00.000001", (NOON_US + 1, 0)),
        ("2026-11-23T12:00:00.1", (NOON_US + 100_000, 0)),
        ("2026-11-23T12:00:00.123456789Z", (NOON_US + 123_456, 0)),
        ("1970-01-01T00:00:00Z", (0, 0)),
        ("1969-12-31T23:59:59.999999Z", (-1, 0)),
    ],
)
def test_a_time_may_be_written_in_any_of_the_iso_forms(text: str, expected: tuple[int, int]) -> None:
    assert instant(text, UTC) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "soon", "now", "NaN", "0", "1795435200", "1795435200000", "12:00:00", "23.11.2026", "11/23/2026"),
        *("2026-11-23T", "2026-11-23T25:00:00", "2026-11-23T12:60:00", "2026-13-01", "2026-02-29", "2026-11-31"),
        *("0000-01-01", "10000-01-01", "-2026-11-23", "+2026-11-23", "99999999999999-01-01", "2026-11-23T12:00:00z"),
        *(
            " 2026-11-23",
            "2026-11-23 ",
            "2026-11-23T12:00:00+24:00",
            "2026-11-23T12:00:00 UTC",
            "\uff12\uff10\uff12\uff16-11-23",
        ),
        *("2026-11-23\0", "x" * 900_000, "2" * 900_000, "2026-11-23T12:00:00." + "1" * 100 + "x"),
    ],
)
def test_what_is_no_time_never_was(text: str) -> None:
    for zone in (UTC, LISBON):
        assert instant(text, zone) == (NEVER_US, 0)


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("UTC"), LISBON, NEW_YORK, FAR_EAST, FAR_WEST])
@pytest.mark.parametrize("year", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "9999-12-31T00:00:00"])
@pytest.mark.parametrize("offset", ["", "Z", "+23:59", "-23:59", "+23:59:59.999999", "-00:00:00.000001"])
def test_both_ends_of_the_calendar_are_out_of_reach_in_any_zone(zone: tzinfo, year: str, offset: str) -> None:
    at_us, _ = instant(year + offset, zone)
    assert at_us == NEVER_US or EARLIEST_US <= at_us < LATEST_US


def test_the_calendar_ends_a_day_early_so_that_every_zone_can_show_its_ends() -> None:
    assert instant("0001-01-02T00:00:00Z", UTC) == (EARLIEST_US, 0)
    assert instant("0001-01-01T23:59:59.999999Z", UTC) == (NEVER_US, 0)
    assert instant("9999-12-30T23:59:59.999999Z", UTC) == (LATEST_US - 1, 0)
    assert instant("9999-12-31T00:00:00Z", UTC) == (NEVER_US, 0)
    for at_us in (EARLIEST_US, LATEST_US - 1):
        for zone in (FAR_EAST, FAR_WEST, NEW_YORK):
            (EPOCH + timedelta(microseconds=at_us)).astimezone(zone)  # does not raise


# --- Times without a zone -----------------------------------------------------------------------------------------------


def test_a_naive_time_belongs_to_the_zone_that_the_deployment_names() -> None:
    assert instant("2026-11-23T12:00:00", NEW_YORK) == (NOON_US + 5 * 3_600 * SECOND_US, -18_000)
    assert instant("2026-07-23T12:00:00", NEW_YORK)[1] == -14_400
    assert instant("2026-11-23T12:00:00Z", NEW_YORK) == (NOON_US, 0)
    assert instant("2026-11-23T13:00:00+01:00", NEW_YORK) == (NOON_US, 3_600)


def test_a_naive_time_that_comes_twice_is_the_earlier_and_one_that_never_comes_is_read_as_before_the_change() -> None:
    assert instant("2026-11-01T01:30:00", NEW_YORK) == instant("2026-11-01T01:30:00-04:00", UTC)
    assert instant("2026-03-08T02:30:00", NEW_YORK) == instant("2026-03-08T02:30:00-05:00", UTC)


@pytest.mark.parametrize("utc", [UTC, ZoneInfo("UTC"), ZoneInfo("Etc/UTC")])
def test_utc_is_utc_by_any_name(utc: tzinfo) -> None:
    assert instant("2026-11-23T12:00:00", utc) == (NOON_US, 0)


def test_a_parser_reads_naive_times_in_its_zone() -> None:
    raw = json.dumps(payload("session", scheduled_start="2026-11-20T18:00:00")).encode()
    fate = Parser(NEW_YORK).parse("session", raw, NOW_US + DAY_US)
    assert isinstance(fate, Accepted)
    assert isinstance(fate.event, Session)
    assert fate.event.scheduled_start_us == 1_795_197_600_000_000 + 5 * 3_600 * SECOND_US
    assert fate.event.start_offset_seconds == -18_000


def test_naive_and_aware_times_may_be_mixed_in_one_record() -> None:
    changes = {"scheduled_start": "2026-11-20T18:00:00", "actual_start": "2026-11-20T19:02:00+01:00"}
    assert accepted("session", **changes).warnings == ()


def test_the_zone_a_time_was_written_in_stays_known() -> None:
    start = accepted("session", scheduled_start="2026-11-20T23:02:00+05:00").event
    updated = accepted("tutor", updated_at="2026-11-23T03:00:00-08:00").event
    assert isinstance(start, Session)
    assert isinstance(updated, Tutor)
    assert (start.start_offset_seconds, updated.updated_offset_seconds) == (18_000, -28_800)


# --- How far ahead of now -----------------------------------------------------------------------------------------------

MINUTES_5 = 300 * SECOND_US
AHEAD_RULES = [
    ("tutor", "onboarding_date", MINUTES_5, "5 minutes", None),
    ("tutor", "created_at", MINUTES_5, "5 minutes", None),
    ("tutor", "updated_at", MINUTES_5, "5 minutes", None),
    ("session", "scheduled_start", 31 * DAY_US, "31 days", "scheduled_start_ahead"),
    ("session", "actual_start", 31 * DAY_US, "31 days", "actual_start_ahead"),
    ("session", "created_at", MINUTES_5, "5 minutes", None),
    ("session", "updated_at", MINUTES_5, "5 minutes", None),
    ("feedback", "submitted_at", 32 * DAY_US, "32 days", "submitted_ahead"),
    ("feedback", "created_at", MINUTES_5, "5 minutes", None),
    ("tutor_event", "event_timestamp", 31 * DAY_US, "31 days", "event_ahead"),
    ("tutor_event", "created_at", MINUTES_5, "5 minutes", None),
]


@pytest.mark.parametrize(("kind", "field", "ahead_us", "ahead", "warning"), AHEAD_RULES)
def test_a_time_may_lie_so_far_ahead_and_no_further(
    kind: str, field: str, ahead_us: int, ahead: str, warning: str | None
) -> None:
    assert warning not in accepted(kind, **{field: written(NOW_US)}).warnings
    for at_us in (NOW_US + 1, NOW_US + ahead_us):
        assert warning is None or warning in accepted(kind, **{field: written(at_us)}).warnings
    fate = rejected(kind, **{field: written(NOW_US + ahead_us + 1)})
    assert fate == Rejected("invalid", f"{field} lies more than {ahead} ahead")


def test_what_is_dropped_from_a_no_show_may_lie_no_further_ahead_either() -> None:
    changes = {"no_show": True, "engagement_score": 0.0, "duration_minutes": 0, "late_start_minutes": 0}
    fate = rejected("session", **changes, actual_start=written(NOW_US + 31 * DAY_US + 1))
    assert fate == Rejected("invalid", "actual_start lies more than 31 days ahead")


@pytest.mark.parametrize(("kind", "field"), [rule[:2] for rule in AHEAD_RULES])
def test_any_time_of_the_past_will_do_and_none_that_is_absurd(kind: str, field: str) -> None:
    accepted(kind, **{field: "0001-01-02"})
    for absurd in ("0001-01-01", "9999-12-31", "soon", ""):
        fate = rejected(kind, **{field: absurd})
        assert fate == Rejected("invalid", f"{field} is not an ISO 8601 time of the years 1 to 9999")


@pytest.mark.parametrize(("kind", "field"), [rule[:2] for rule in AHEAD_RULES])
@pytest.mark.parametrize("value", [0, 1_795_435_200, 1.5, True, ["2026-11-23"], {}])
def test_a_time_is_text(kind: str, field: str, value: Any) -> None:
    assert rejected(kind, **{field: value}).detail == f"{field} must be a string"


def test_a_later_now_accepts_all_that_an_earlier_one_did() -> None:
    raw = json.dumps(payload("session", scheduled_start=written(NOW_US + 40 * DAY_US))).encode()
    assert isinstance(Parser().parse("session", raw, NOW_US), Rejected)
    for later_us in (NOW_US + 9 * DAY_US, NOW_US + 400 * DAY_US, 2**63, 2**63 * 1_000):
        assert isinstance(Parser().parse("session", raw, later_us), Accepted)


def test_what_is_no_time_is_not_accepted_however_late_it_is() -> None:
    raw = json.dumps(payload("session", scheduled_start="soon")).encode()
    assert isinstance(Parser().parse("session", raw, 2**63 * 1_000), Rejected)
