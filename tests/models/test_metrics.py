"""Formulas, tiers and the public record: the golden vectors of contract §12, every boundary of §4.2 and §4.3."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.metrics import (
    ENGAGEMENT_MODES,
    TIER_THRESHOLDS,
    EngagementMode,
    WindowInputs,
    WindowMetrics,
    decode,
    encode,
    engagement_readings,
    engagement_score,
    metrics_updated,
    performance_tier,
    response_time_avg_minutes,
    utc_text,
    window_metrics,
)

STORED = (
    "sessions_completed",
    "avg_rating",
    "first_session_success_rate",
    "reschedule_rate",
    "no_show_count",
    "engagement_score",
    "learning_objectives_met_pct",
    "response_time_avg_minutes",
    "performance_tier",
)

# V1 and V2 as counted: five sessions, three first ones of which one is rated (5); ratings 5, 4 and 3.
V1 = WindowInputs(
    scheduled=5,
    completed=4,
    no_shows=1,
    rescheduled=1,
    on_time=4,
    objectives_known=4,
    objectives_met=3,
    first_sessions=3,
    ratings=3,
    first_rated=1,
    first_succeeded=1,
    rating_sum=12,
    logins=3,
    engagement=[0.8, 0.9, 0.0, 0.7],
    response_minutes=[10.0, 25.0, 7.0],
)
V2 = msgspec.structs.replace(V1, engagement=[80.0, 90.0, 0.0, 70.0])
V3 = WindowInputs(
    scheduled=8,
    completed=8,
    on_time=8,
    objectives_known=8,
    objectives_met=8,
    first_sessions=8,
    ratings=6,
    first_rated=6,
    first_succeeded=6,
    rating_sum=30,
    logins=8,
    engagement=[95.0] * 8,
)
V4 = WindowInputs()


def figures(inputs: WindowInputs, mode: EngagementMode = "upstream", login_known: bool = True) -> tuple[Any, ...]:
    metrics = window_metrics("7day", "id", inputs, mode, login_known=login_known)
    return tuple(getattr(metrics, name) for name in STORED)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (V1, (4, 4.0, 100.0, 20.0, 1, 40.24, 75.0, 14.0, "At Risk")),
        (V2, (4, 4.0, 100.0, 20.0, 1, 64.0, 75.0, 14.0, "Needs Attention")),
        (V3, (8, 5.0, 100.0, 0.0, 0, 98.0, 100.0, None, "Exemplary")),
        (V4, (0, None, None, None, 0, None, None, None, "Developing")),
    ],
    ids=["V1", "V2", "V3", "V4"],
)
def test_golden_vectors(inputs: WindowInputs, expected: tuple[Any, ...]) -> None:
    assert figures(inputs) == expected


def test_v1_normalized_is_v2() -> None:
    assert engagement_readings(V1.engagement, "normalized") == V2.engagement
    assert figures(V2, "normalized") == figures(V2, "upstream")


def test_each_mode_reads_scores_in_its_own_way() -> None:
    scores = [0.0, 0.5, 1.0, 1.01, 85.0]
    assert engagement_readings(scores, "upstream") == scores
    assert engagement_readings(scores, "normalized") == [0.0, 50.0, 100.0, 1.01, 85.0]


class TestEngagement:
    INPUTS = WindowInputs(scheduled=4, on_time=2, logins=1, engagement=[60.0])

    def test_with_logins_all_three_parts_weigh(self) -> None:
        assert engagement_score(self.INPUTS, "normalized", login_known=True) == 0.4 * 25 + 0.4 * 60 + 0.2 * 50

    def test_without_any_login_the_rest_is_divided_by_what_it_weighs(self) -> None:
        inputs = msgspec.structs.replace(self.INPUTS, logins=0)
        assert engagement_score(inputs, "normalized", login_known=False) == round((24 + 10) / 0.6, 2)

    def test_a_login_outside_the_window_keeps_the_login_part_at_zero(self) -> None:
        inputs = msgspec.structs.replace(self.INPUTS, logins=0)
        assert engagement_score(inputs, "normalized", login_known=True) == 34.0

    def test_upstream_never_drops_the_login_part(self) -> None:
        inputs = msgspec.structs.replace(self.INPUTS, logins=0)
        assert engagement_score(inputs, "upstream", login_known=False) == 34.0

    def test_more_logins_than_sessions_count_as_one_each(self) -> None:
        inputs = msgspec.structs.replace(self.INPUTS, logins=9)
        assert engagement_score(inputs, "upstream", login_known=True) == 40.0 + 24.0 + 10.0

    @pytest.mark.parametrize("mode", ENGAGEMENT_MODES)
    def test_sessions_without_scores_are_worth_50_in_either_mode(self, mode: EngagementMode) -> None:
        assert engagement_score(WindowInputs(scheduled=1, on_time=1), mode, login_known=True) == 40.0

    def test_no_sessions_no_engagement_whatever_the_logins(self) -> None:
        assert engagement_score(WindowInputs(logins=5), "upstream", login_known=True) is None


def test_zero_is_a_figure_and_not_none() -> None:
    inputs = WindowInputs(scheduled=2, no_shows=2, objectives_known=1, first_sessions=1, ratings=1, first_rated=1)
    metrics = window_metrics("7day", "id", inputs, "upstream", login_known=False)
    assert metrics.reschedule_rate == metrics.learning_objectives_met_pct == metrics.first_session_success_rate == 0.0
    assert metrics.no_show_rate_pct == 100.0


def test_an_unrated_first_session_neither_succeeds_nor_fails() -> None:
    inputs = WindowInputs(scheduled=2, first_sessions=2)
    assert window_metrics("7day", "id", inputs, "upstream", login_known=False).first_session_success_rate is None


def test_rounding_is_half_even_on_the_binary_value() -> None:
    assert response_time_avg_minutes([0.125]) == 0.12  # exact in binary: to even
    assert response_time_avg_minutes([2.675]) == 2.67  # in binary a little less


def test_means_survive_the_end_of_the_float_range() -> None:
    assert response_time_avg_minutes([1.7e308, 1.7e308]) == pytest.approx(1.7e308)


def test_means_do_not_depend_on_the_order() -> None:
    assert response_time_avg_minutes([1e16, 1.0, -1e16]) == response_time_avg_minutes([1e16, -1e16, 1.0]) == 0.33


class TestTiers:
    GREEN = (4.5, 85.0, 10.0, 0, 80.0, 90.0)
    RED = (3.49, 69.99, 15.01, 4, 59.99, 79.99)
    BETWEEN_LOW = (3.5, 70.0, 15.0, 3, 60.0, 80.0)
    BETWEEN_HIGH = (4.49, 84.99, 10.01, 1, 79.99, 89.99)

    @pytest.mark.parametrize(
        ("greens", "reds", "tier"),
        [
            (6, 0, "Exemplary"),
            (5, 0, "Exemplary"),
            (5, 1, "Needs Attention"),
            (4, 0, "Strong"),
            (3, 0, "Strong"),
            (2, 0, "Developing"),
            (0, 0, "Developing"),
            (4, 2, "Needs Attention"),
            (3, 3, "At Risk"),
            (0, 6, "At Risk"),
        ],
    )
    def test_first_match(self, greens: int, reds: int, tier: str) -> None:
        for between in (self.BETWEEN_LOW, self.BETWEEN_HIGH, (None,) * 6):
            values = (*self.GREEN[:greens], *self.RED[greens : greens + reds], *between[greens + reds :])
            assert performance_tier(values) == tier

    @pytest.mark.parametrize("position", range(6), ids=[thresholds.figure for thresholds in TIER_THRESHOLDS])
    def test_every_bound_of_every_figure(self, position: int) -> None:
        def tier(value: float | None, others: tuple[float | None, ...]) -> str:
            return performance_tier((*others[:position], value, *others[position + 1 :]))

        four_green = tuple(None if i == (position + 1) % 6 else self.GREEN[i] for i in range(6))
        assert tier(self.GREEN[position], four_green) == "Exemplary"
        for between in (self.BETWEEN_LOW[position], self.BETWEEN_HIGH[position], None):
            assert tier(between, four_green) == "Strong"
        assert tier(self.RED[position], four_green) == "Needs Attention"

    def test_only_rounded_figures_count(self) -> None:
        inputs = WindowInputs(scheduled=2, on_time=2, engagement=[89.9999], logins=0)
        metrics = window_metrics("7day", "id", inputs, "normalized", login_known=False)
        assert metrics.engagement_score == 93.33
        just_under = WindowInputs(ratings=100_000, rating_sum=449_999)  # 4.49999 is shown as 4.5, and judged so
        assert window_metrics("7day", "id", just_under, "upstream", login_known=False).avg_rating == 4.5


def three_windows(seven: WindowInputs, thirty: WindowInputs) -> dict[str, WindowMetrics]:
    return {
        window: window_metrics(window, f"id_{window}", inputs, "upstream", login_known=True)
        for window, inputs in (("7day", seven), ("30day", thirty), ("90day", thirty))
    }


class TestRecord:
    AS_OF_US = 1_770_000_000_123_456

    def record(self, seven: WindowInputs = V2, thirty: WindowInputs = V3) -> Any:
        return metrics_updated(
            "tutor_00001",
            three_windows(seven, thirty),
            as_of_us=self.AS_OF_US,
            epoch=3,
            position=77,
            tutor_name="Zoë",
            tutor_status="active",
            oldest_event_time_ms=1_770_000_000_000,
            events=2,
        )

    def test_comes_back_as_it_went(self) -> None:
        record = self.record()
        assert decode(encode(record)) == record
        assert record.fence == (3, 77, self.AS_OF_US)

    def test_public_json(self) -> None:
        document = json.loads(encode(self.record()))
        assert (document["type"], document["version"]) == ("metrics.updated", 1)
        assert document["as_of"] == "2026-02-02T02:40:00.123456Z"
        assert list(document["windows"]) == ["7day", "30day", "90day"]
        assert document["windows"]["7day"] == {
            "window": "7day",
            "metric_id": "id_7day",
            "sessions_completed": 4,
            "avg_rating_stars": 4.0,
            "first_session_success_rate_pct": 100.0,
            "reschedule_rate_pct": 20.0,
            "no_show_count": 1,
            "engagement_score_pct": 64.0,
            "learning_objectives_met_pct": 75.0,
            "response_time_avg_minutes": 14.0,
            "performance_tier": "Needs Attention",
            "sessions_scheduled": 5,
            "first_sessions_count": 3,
            "reschedule_count": 1,
            "feedback_count": 3,
            "no_show_rate_pct": 20.0,
            "sessions_per_week": 5.0,
        }

    def test_declines_are_30_day_minus_7_day(self) -> None:
        assert json.loads(encode(self.record()))["declines_7day_vs_30day"] == {
            "avg_rating_stars": 1.0,
            "engagement_score_pct": 34.0,
            "sessions_per_week": round(1.87 - 5, 2),
            "sessions_per_week_frac": round(1 - 5 / (8 * 7 / 30), 4),
        }

    def test_what_a_window_lacks_has_not_declined(self) -> None:
        declines = self.record(V4, V4).declines
        assert (declines.avg_rating_stars, declines.engagement_score_pct) == (None, None)
        assert (declines.sessions_per_week, declines.sessions_per_week_frac) == (0.0, None)

    def test_a_week_without_sessions_has_lost_the_whole_volume(self) -> None:
        assert self.record(V4, V3).declines.sessions_per_week_frac == 1.0

    def test_unknown_fields_are_ignored_and_missing_late_ones_defaulted(self) -> None:
        document = json.loads(encode(self.record()))
        del document["events"]
        assert decode(json.dumps(document | {"new_in_a_later_release": 1}).encode()).events == 0

    @pytest.mark.parametrize(
        "value", [b"", b"{}", b"[]", b"\xff", b'{"type":"tier.changed"}', b'{"type":"metrics.updated"}']
    )
    def test_anything_else_is_refused(self, value: bytes) -> None:
        with pytest.raises(msgspec.DecodeError):
            decode(value)

    def test_another_version_is_refused(self) -> None:
        document = json.loads(encode(self.record()))
        with pytest.raises(msgspec.DecodeError):
            decode(json.dumps(document | {"version": 2}).encode())


@pytest.mark.parametrize(
    ("instant_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_770_000_000_000_001, "2026-02-02T02:40:00.000001Z"),
    ],
)
def test_utc_text(instant_us: int, text: str) -> None:
    assert utc_text(instant_us) == text


counts = st.integers(0, 40)
scores = st.lists(st.floats(-1e9, 1e9) | st.floats(0, 1), max_size=5)


@settings(max_examples=100)
@given(st.builds(WindowInputs, *[counts] * 13, engagement=scores, response_minutes=scores), st.booleans())
def test_any_inputs_make_metrics_whose_json_comes_back(inputs: WindowInputs, login_known: bool) -> None:
    for mode in ENGAGEMENT_MODES:
        windows = {
            window: window_metrics(window, "id", inputs, mode, login_known=login_known)
            for window in ("7day", "30day", "90day")
        }
        record = metrics_updated("t", windows, as_of_us=0, epoch=0, position=0)
        assert decode(encode(record)) == record
