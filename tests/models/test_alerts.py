"""What is told of a tutor: each change once, thresholds included, and back only behind the hysteresis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alerts import (
    KINDS,
    MOST_ALERT_AGE_US,
    MOST_POOR_REMEMBERED,
    Alert,
    AlertCleared,
    AlertRaised,
    Announced,
    FirstSessionPoor,
    ReschedulePattern,
    TierChanged,
    changes,
    decode,
    encode,
    may_tell,
)
from models.metrics import (
    MOST_POOR_FIRST_SESSIONS,
    MetricsUpdated,
    PoorFirstSession,
    WindowInputs,
    metrics_updated,
    window_metrics,
)

T = 1_770_000_000_000_000
SLACK = 5.0
CALM = {"avg_rating": 4.8, "reschedule_rate": 0.0, "no_show_count": 0, "engagement_score": 90.0}


def update(tier: str = "Strong", poor: Sequence[str] = (), week: int = 0, fortnight: int = 0, **figures: Any) -> Any:
    """A record whose 30-day window holds `figures`, all well where nothing is said."""
    windows = {
        name: window_metrics(name, name, WindowInputs(), "normalized", login_known=False)
        for name in ("7day", "30day", "90day")
    }
    record = metrics_updated("t1", windows, as_of_us=T, epoch=1, position=1, tutor_name="Ada")
    month = msgspec.structs.replace(windows["30day"], **(CALM | figures), performance_tier=tier)
    windows |= {"30day": month, "7day": msgspec.structs.replace(windows["7day"], reschedule_count=week)}
    return msgspec.structs.replace(
        record,
        windows=windows,
        poor_first_sessions_7day=tuple(PoorFirstSession(id_, 2, False) for id_ in poor),
        reschedules_14day_count=fortnight,
    )


def told(*updates: MetricsUpdated, before: Announced | None = None, slack: float = SLACK) -> list[list[Alert]]:
    """The alerts of one record after the other."""
    answers = []
    for record in updates:
        before, alerts = changes(before, record, slack)
        answers.append(alerts)
    return answers


def levels(figure: str, *values: Any) -> list[str | None]:
    """What stands about a figure after each value, by what was told."""
    standing: str | None = None
    found = []
    for alerts in told(update(), *[update(**figures) for figures in [{figure: value} for value in values]])[1:]:
        for alert in alerts:
            standing = alert.severity if isinstance(alert, AlertRaised) else None
        found.append(standing)
    return found


@pytest.mark.parametrize(
    ("figure", "values", "expected"),
    [
        ("avg_rating", [4.01, 4.0, 3.01, 3.0], [None, "warning", "warning", "critical"]),
        ("avg_rating", [3.0, 3.15, 3.16, 4.2, 4.21], ["critical", "critical", "warning", "warning", None]),
        ("avg_rating", [3.9, 4.1, 3.9, 4.1], ["warning"] * 4),
        ("avg_rating", [3.9, None, 3.9], ["warning", None, "warning"]),
        ("reschedule_rate", [19.99, 20.0, 30.0, 28.5, 28.49, 19.0, 18.99],
         [None, "warning", "critical", "critical", "warning", "warning", None]),
        ("no_show_count", [2, 3, 5, 4, 2], [None, "warning", "critical", "warning", None]),
        ("engagement_score", [70.01, 70.0, 60.0, 63.0, 63.01, 73.5, 73.51],
         [None, "warning", "critical", "critical", "warning", "warning", None]),
        ("engagement_score", [55.0, 95.0], ["critical", None]),
    ],
)  # fmt: skip
def test_levels_rise_at_their_bounds_and_fall_behind_the_slack(
    figure: str, values: list[float | None], expected: list[str | None]
):
    assert levels(figure, *values) == expected


def test_an_alert_says_what_it_is_about():
    (alert,) = told(update(), update(reschedule_rate=31.0))[1]
    assert isinstance(alert, AlertRaised)
    assert (alert.id, alert.sequence, alert.figure) == ("t1/alert.raised/1", 1, "reschedule_rate_pct")
    assert (alert.severity, alert.old_severity, alert.value, alert.threshold) == ("critical", None, 31.0, 30.0)
    assert (alert.tutor_id, alert.tutor_name, alert.as_of) == ("t1", "Ada", update().as_of)


def test_a_change_of_tier_names_both():
    (alert,) = told(update("Strong"), update("At Risk"))[1]
    assert isinstance(alert, TierChanged)
    assert (alert.old_tier, alert.new_tier, alert.window) == ("Strong", "At Risk", "30day")


def test_the_first_look_tells_what_is_wrong_and_not_how_it_came_about():
    (first,) = told(update("At Risk", poor=["s1"], week=3, avg_rating=2.0))
    assert [alert.kind for alert in first] == ["alert.raised", "reschedule.pattern"]
    assert told(update("At Risk", poor=["s1"]), update("At Risk", poor=["s1"])) == [[], []]


def test_each_poor_first_session_is_told_once():
    first, second, third = told(update(), update(poor=["s1"]), update(poor=["s1", "s2"]))
    assert first == []
    (one,), (other,) = second, third
    assert isinstance(one, FirstSessionPoor)
    assert isinstance(other, FirstSessionPoor)
    assert (one.session_id, one.rating_stars, other.session_id) == ("s1", 2, "s2")


def test_each_is_told_once_also_when_there_are_more_than_a_record_names():
    ids = [f"s{number:03}" for number in range(MOST_POOR_FIRST_SESSIONS + 3)]
    said: Announced | None = None
    heard: list[str] = []
    for poor in (
        [],
        ids[:-3],
        ids[3:],  # three more push the oldest out
        [*ids[1:-3], *ids[-2:]][-MOST_POOR_FIRST_SESSIONS:],  # one of the newest was rated again: an older one is back
        ids[3:],
        ids[:40],  # a list that is not full is all of them
        ids[:41],
    ):
        said, alerts = changes(said, update(poor=poor), SLACK)
        heard += [alert.session_id for alert in alerts if isinstance(alert, FirstSessionPoor)]
    assert heard == [*ids, ids[40]], "the last one was not poor for a while"
    assert said is not None
    assert said.poor == tuple(ids[:41])


def test_what_is_remembered_of_poor_first_sessions_has_a_bound():
    said: Announced | None = None
    for week in range(20):
        poor = [f"s{week:02}-{number:03}" for number in range(MOST_POOR_FIRST_SESSIONS)]
        said, _ = changes(said, update(poor=poor), SLACK)
    assert said is not None
    assert len(said.poor) == MOST_POOR_REMEMBERED
    assert said.poor[-1] == poor[-1]


def test_a_pattern_is_told_when_it_begins_and_when_it_gets_worse():
    answers = told(
        update(), update(week=2, fortnight=2), update(week=3, fortnight=3), update(week=4, fortnight=5),
        update(week=4, fortnight=6), update(week=0, fortnight=2), update(week=3, fortnight=5),
    )  # fmt: skip
    patterns = [(alert.escalated if isinstance(alert, ReschedulePattern) else None) for a in answers for alert in a]
    assert patterns == [False, True, False]
    assert [len(alerts) for alerts in answers] == [0, 0, 1, 0, 1, 0, 1]


figures = st.fixed_dictionaries(
    {
        "tier": st.sampled_from(["Strong", "At Risk", "Developing"]),
        "poor": st.lists(st.sampled_from(["s1", "s2", "s3"]), unique=True),
        "week": st.integers(0, 4),
        "fortnight": st.integers(0, 7),
        "avg_rating": st.none() | st.floats(1, 5),
        "reschedule_rate": st.none() | st.floats(0, 100),
        "no_show_count": st.integers(0, 7),
        "engagement_score": st.none() | st.floats(0, 100),
    }
)


@given(st.lists(figures, min_size=1, max_size=8), st.floats(0, 50))
def test_who_folds_what_was_told_knows_what_stands(history: list[dict[str, Any]], slack: float):
    announced: Announced | None = None
    tier: str | None = None
    standing: dict[str, str] = {}
    raised: dict[str, AlertRaised] = {}
    sequence = 0
    for content in history:
        record = update(**content)
        announced, alerts = changes(announced, record, slack)
        for alert in alerts:
            sequence += 1
            assert (alert.sequence, alert.id) == (sequence, f"t1/{alert.kind}/{sequence}")
            assert decode(encode(alert)) == alert
            if isinstance(alert, TierChanged):
                assert alert.old_tier == tier
                tier = alert.new_tier
            elif isinstance(alert, AlertRaised):
                assert standing.get(alert.figure) == alert.old_severity != alert.severity
                standing[alert.figure] = alert.severity
                raised[alert.figure] = msgspec.structs.replace(alert, tutor_name=None)
            elif isinstance(alert, AlertCleared):
                assert standing.pop(alert.figure) == alert.old_severity
                del raised[alert.figure]
        tier = tier or content["tier"]
        assert tier == content["tier"]
        assert sorted(standing.values()) == sorted(announced.levels.values())
        assert {alert.figure: alert for alert in announced.standing} == raised
        assert changes(announced, record, slack) == (announced, []), "the same again is no change"


def test_figures_that_are_not_settled_or_not_of_now_tell_nothing():
    record = update()
    assert may_tell(record, T + MOST_ALERT_AGE_US)
    assert not may_tell(record, T + MOST_ALERT_AGE_US + 1)
    assert not may_tell(msgspec.structs.replace(record, is_settled=False), T)


def test_all_kinds_have_names_of_their_own():
    assert {kind.kind for kind in KINDS} == {
        *("tier.changed", "alert.raised", "alert.cleared", "first_session.poor", "reschedule.pattern")
    }
