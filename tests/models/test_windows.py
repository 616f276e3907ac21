"""The windows of one tutor against a naive recomputation, and their edges to the microsecond."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.facts import (
    DAY_US,
    EventFact,
    EventPart,
    Fact,
    FeedbackPart,
    SessionFact,
    SessionPart,
    StandingFact,
    StandingPart,
)
from models.metrics import (
    ENGAGEMENT_MODES,
    MOST_POOR_FIRST_SESSIONS,
    EngagementMode,
    PoorFirstSession,
    Recent,
    WindowInputs,
    WindowMetrics,
    window_metrics,
)
from models.rows import metric_id
from models.windows import TutorFacts

T = 1_770_000_000_000_000
DIGEST = b"\0" * 8
DAYS = {"7day": 7, "30day": 30, "90day": 90}
EXAMPLES = max(100, settings().max_examples // 20)  # of the profile in use; test_convergence.py takes all of them


def part(start_us: int, tutor_id: str = "ann", **changes: Any) -> SessionPart:
    figures: dict[str, Any] = {
        "is_first": False,
        "completed": True,
        "no_show": False,
        "rescheduled": False,
        "on_time": True,
        "engagement": 0.5,
        "objectives_met": True,
    }
    return SessionPart(T, DIGEST, tutor_id, start_us, **figures | changes)


def rated(rating: int, tutor_id: str = "ann") -> FeedbackPart:
    return FeedbackPart(T, DIGEST, tutor_id, rating)


def session(
    session_id: str, session_part: SessionPart | None = None, feedback: FeedbackPart | None = None
) -> SessionFact:
    return SessionFact("ann", session_id, session_part, feedback)


def event(event_id: str, time_us: int, event_type: str = "login", minutes: float | None = None) -> EventFact:
    return EventFact("ann", event_id, EventPart(time_us, DIGEST, "ann", event_type, minutes))


def windows(facts: Iterable[Fact], t_us: int = T, mode: EngagementMode = "normalized") -> dict[str, WindowMetrics]:
    return TutorFacts("ann", facts).windows(t_us, mode)


# --- the naive recomputation ------------------------------------------------------------------------------------------


def standing_at(fact: Fact) -> int | None:
    """Where in time a fact counts for Ann; None if nowhere."""
    if isinstance(fact, SessionFact) and fact.session is not None:
        ours = fact.session.tutor_id == "ann" or (fact.feedback is not None and fact.feedback.tutor_id == "ann")
        return fact.session.start_us if ours else None
    if isinstance(fact, EventFact) and fact.event.tutor_id == "ann":
        counts = fact.event.event_type == "login" or (
            fact.event.event_type == "message_response" and fact.event.response_time_minutes is not None
        )
        return fact.event.version_us if counts else None
    return None


def naive(facts: Iterable[Fact], t_us: int, mode: EngagementMode) -> dict[str, WindowMetrics]:
    facts = list(facts)

    def within(days: int) -> list[Fact]:
        return [f for f in facts if (at := standing_at(f)) is not None and t_us - days * DAY_US <= at < t_us]

    def logins(held: list[Fact]) -> int:
        return sum(isinstance(f, EventFact) and f.event.event_type == "login" for f in held)

    result = {}
    for window, days in DAYS.items():
        held = within(days)
        placed = [f for f in held if isinstance(f, SessionFact)]
        own = [f.session for f in placed if f.session is not None and f.session.tutor_id == "ann"]
        ratings = {f.session_id: f.feedback.rating for f in placed if f.feedback and f.feedback.tutor_id == "ann"}
        first = [f.session_id for f in placed if f.session and f.session.tutor_id == "ann" and f.session.is_first]
        scores = [s.engagement for s in own if s.engagement is not None]
        if mode == "normalized":
            scores = [score * 100 if score <= 1 else score for score in scores]
        inputs = WindowInputs(
            scheduled=len(own),
            completed=sum(s.completed for s in own),
            no_shows=sum(s.no_show for s in own),
            rescheduled=sum(s.rescheduled for s in own),
            on_time=sum(s.on_time for s in own),
            objectives_known=sum(s.objectives_met is not None for s in own),
            objectives_met=sum(s.objectives_met is True for s in own),
            first_sessions=len(first),
            ratings=len(ratings),
            first_rated=sum(session_id in ratings for session_id in first),
            first_succeeded=sum(ratings.get(session_id, 0) >= 4 for session_id in first),
            rating_sum=sum(ratings.values()),
            logins=logins(held),
            engagement=scores,
            response_minutes=[
                f.event.response_time_minutes
                for f in held
                if isinstance(f, EventFact)
                and f.event.event_type == "message_response"
                and f.event.response_time_minutes is not None
            ],
        )
        result[window] = window_metrics(
            window, metric_id("ann", window), inputs, mode, login_known=logins(within(90)) > 0
        )
    return result


def naive_recent(facts: Iterable[Fact], t_us: int) -> Recent:
    """Poor first sessions of the last week, and reschedules of the last fortnight."""
    poor, reschedules = [], 0
    for fact in facts:
        if not isinstance(fact, SessionFact) or fact.session is None or fact.session.tutor_id != "ann":
            continue
        days_ago = (t_us - fact.session.start_us) / DAY_US
        reschedules += fact.session.rescheduled and 0 < days_ago <= 14
        rating = fact.feedback.rating if fact.feedback and fact.feedback.tutor_id == "ann" else None
        is_poor = not fact.session.on_time or (rating is not None and rating < 3)
        if fact.session.is_first and is_poor and 0 < days_ago <= 7:
            poor.append((fact.session.start_us, PoorFirstSession(fact.session_id, rating, not fact.session.on_time)))
    return Recent(tuple(session for _, session in sorted(poor, key=lambda entry: entry[0])), reschedules)


# --- generated facts --------------------------------------------------------------------------------------------------

edges = st.builds(
    lambda days, microseconds: T - days * DAY_US + microseconds,
    st.sampled_from([0, 7, 30, 90, -1, -31]),
    st.integers(-2, 2),
)
instants = edges | st.integers(T - 125 * DAY_US, T + 32 * DAY_US)
tutors = st.sampled_from(["ann", "ann", "bob"])
session_parts = st.builds(
    SessionPart,
    st.just(T),
    st.just(DIGEST),
    tutors,
    instants,
    *[st.booleans()] * 5,
    engagement=st.none() | st.floats(0, 1) | st.sampled_from([0.1, 0.9, 85.0]),
    objectives_met=st.none() | st.booleans(),
)
feedback_parts = st.builds(FeedbackPart, st.just(T), st.just(DIGEST), tutors, st.integers(1, 5))
ids = st.sampled_from([f"id{n}" for n in range(12)])  # few, so that facts replace each other; shared by both kinds
session_facts = st.builds(
    SessionFact, st.just("ann"), ids, st.none() | session_parts | session_parts, st.none() | feedback_parts
)
event_facts = st.builds(
    EventFact,
    st.just("ann"),
    ids,
    st.builds(
        EventPart,
        instants,
        st.just(DIGEST),
        tutors,
        st.sampled_from(["login", "message_response", "profile_view"]),
        st.none() | st.floats(0, 1e6) | st.sampled_from([5.0, 0.1]),
    ),
)
facts_of_ann = st.lists(session_facts | session_facts | event_facts, max_size=30)
modes = st.sampled_from(ENGAGEMENT_MODES)


def identity(fact: Fact) -> tuple[str, str]:
    if isinstance(fact, SessionFact):
        return "session", fact.session_id
    return ("event", fact.event_id) if isinstance(fact, EventFact) else ("standing", "")


@settings(max_examples=EXAMPLES)
@given(facts_of_ann, edges, modes)
def test_windows_equal_the_naive_recomputation(facts: list[Fact], t_us: int, mode: EngagementMode) -> None:
    remembered = {identity(fact): fact for fact in facts}
    expected = naive(remembered.values(), t_us, mode)
    assert windows(facts, t_us, mode) == expected
    one_by_one = TutorFacts("ann")
    for fact in facts:
        one_by_one.put(fact)
    assert one_by_one.windows(t_us, mode) == expected


@settings(max_examples=EXAMPLES)
@given(facts_of_ann, edges)
def test_what_alerts_look_at_equals_the_naive_recomputation(facts: list[Fact], t_us: int) -> None:
    expected = naive_recent({identity(fact): fact for fact in facts}.values(), t_us)
    recent = TutorFacts("ann", facts).recent(t_us)
    assert recent.reschedules == expected.reschedules
    assert set(recent.poor_first_sessions) == set(expected.poor_first_sessions)  # starts may be equal


def test_of_very_many_poor_first_sessions_the_newest_are_named_in_whatever_order_they_came() -> None:
    def poor(number: int, start_us: int) -> Fact:
        return session(f"s{number:03}", part(start_us, is_first=True, on_time=False))

    older = [poor(number, T - DAY_US) for number in range(60)]
    together = [poor(number, T - 60) for number in range(60, 160)]
    newest = [poor(number, T - 1) for number in range(160, 170)]
    facts = [*older, *together, *newest]
    expected = [f"s{number:03}" for number in range(70, 170)]
    assert len(expected) == MOST_POOR_FIRST_SESSIONS
    for order in (facts, facts[::-1], random.Random(1).sample(facts, len(facts))):
        one_by_one = TutorFacts("ann")
        for fact in order:
            one_by_one.put(fact)
        for tutor in (one_by_one, TutorFacts("ann", order)):
            assert [session.session_id for session in tutor.recent(T).poor_first_sessions] == expected


@settings(max_examples=EXAMPLES)
@given(facts_of_ann, facts_of_ann, st.lists(ids), modes)
def test_forgetting_and_replacing_leave_what_a_fresh_start_would_hold(
    before: list[Fact], after: list[Fact], forgotten: list[str], mode: EngagementMode
) -> None:
    tutor = TutorFacts("ann", before)
    remembered = {identity(fact): fact for fact in before}
    for fact_id in forgotten:
        tutor.forget_session(fact_id)
        remembered.pop(("session", fact_id), None)
    for fact in after:
        tutor.put(fact)
        remembered[identity(fact)] = fact
    assert tutor.windows(T, mode) == naive(remembered.values(), T, mode)
    for fact in list(remembered.values()):
        tutor.forget(fact)
    assert tutor.windows(T, mode) == naive([], T, mode)
    assert tutor.next_change(T - 200 * DAY_US) is None


def content(facts: Iterable[Fact], t_us: int) -> list[set[tuple[str, str]]]:
    """The facts in each window."""
    return [
        {identity(f) for f in facts if (at := standing_at(f)) is not None and t_us - days * DAY_US <= at < t_us}
        for days in DAYS.values()
    ]


@settings(max_examples=EXAMPLES)
@given(facts_of_ann, instants)
@example([session("a", part(T))], T)
def test_next_change_is_the_first_instant_with_another_content(facts: list[Fact], t_us: int) -> None:
    held = list({identity(fact): fact for fact in facts}.values())
    change = TutorFacts("ann", facts).next_change(t_us)
    if change is None:
        assert content(held, t_us) == content(held, t_us + 1000 * DAY_US) == [set(), set(), set()]
        return
    assert change > t_us
    assert content(held, change - 1) == content(held, t_us)
    assert content(held, change) != content(held, t_us)


# --- cases with a name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_us", "held"),
    [
        (T, ()),
        (T - 1, ("7day", "30day", "90day")),
        (T - 7 * DAY_US, ("7day", "30day", "90day")),
        (T - 7 * DAY_US - 1, ("30day", "90day")),
        (T - 30 * DAY_US, ("30day", "90day")),
        (T - 30 * DAY_US - 1, ("90day",)),
        (T - 90 * DAY_US, ("90day",)),
        (T - 90 * DAY_US - 1, ()),
    ],
)
def test_a_window_includes_its_start_and_excludes_its_end(start_us: int, held: tuple[str, ...]) -> None:
    result = windows([session("a", part(start_us), rated(4)), event("e", start_us, "message_response", 3.0)])
    assert tuple(window for window, metrics in result.items() if metrics.sessions_completed) == held
    assert tuple(window for window, metrics in result.items() if metrics.avg_rating == 4.0) == held
    assert tuple(window for window, metrics in result.items() if metrics.response_time_avg_minutes == 3.0) == held


def test_next_change_walks_over_every_edge_of_a_session() -> None:
    tutor = TutorFacts("ann", [session("a", part(T))])
    walked = [T - 40 * DAY_US]
    while (change := tutor.next_change(walked[-1])) is not None:
        walked.append(change)
    assert walked[1:] == [T + 1, T + 7 * DAY_US + 1, T + 30 * DAY_US + 1, T + 90 * DAY_US + 1]


def test_a_rating_for_anothers_session_counts_at_that_sessions_start() -> None:
    theirs = part(T - 8 * DAY_US, "bob", is_first=True)
    result = windows([session("a", theirs, rated(2))])
    assert (result["7day"].avg_rating, result["30day"].avg_rating) == (None, 2.0)
    assert result["30day"].sessions_scheduled == result["30day"].first_sessions_count == 0
    assert result["30day"].first_session_success_rate is None


def test_a_rating_given_to_another_leaves_the_first_session_unrated() -> None:
    result = windows([session("a", part(T - 1, is_first=True), rated(5, "bob"))])
    assert (result["7day"].first_sessions_count, result["7day"].feedback_count) == (1, 0)
    assert result["7day"].first_session_success_rate is None


def test_a_rating_whose_session_is_unknown_counts_nowhere_until_it_comes() -> None:
    tutor = TutorFacts("ann", [session("a", None, rated(5))])
    assert tutor.windows(T, "normalized")["90day"].feedback_count == 0
    assert tutor.next_change(0) is None
    tutor.put(session("a", part(T - 1), rated(5)))
    assert tutor.windows(T, "normalized")["90day"].avg_rating == 5.0


def test_a_session_that_moved_away_leaves() -> None:
    tutor = TutorFacts("ann", [session("a", part(T - 1), rated(5))])
    tutor.put(session("a", part(T - 1, "bob"), rated(5)))
    assert tutor.windows(T, "normalized")["7day"].sessions_scheduled == 0
    assert tutor.windows(T, "normalized")["7day"].avg_rating == 5.0
    tutor.put(session("a", part(T - 1, "bob"), rated(5, "bob")))
    assert tutor.windows(T, "normalized") == windows([])


class TestLogins:
    """C3: a login event anywhere in [t - 90 d, t) decides for all three windows."""

    SESSION = session("a", part(T - 1, engagement=0.6))

    @pytest.mark.parametrize(
        ("time_us", "known"),
        [(T, False), (T - 1, True), (T - 90 * DAY_US, True), (T - 90 * DAY_US - 1, False)],
    )
    def test_the_longest_window_decides(self, time_us: int, known: bool) -> None:
        result = windows([self.SESSION, event("e", time_us)])
        without_logins = round((0.4 * 60 + 0.2 * 100) / 0.6, 2)
        expected = (44.0 if time_us < T - 7 * DAY_US else 84.0) if known else without_logins
        assert result["7day"].engagement_score == expected

    def test_only_own_logins_count(self) -> None:
        theirs = EventFact("ann", "e", EventPart(T - 1, DIGEST, "bob", "login", None))
        assert windows([self.SESSION, theirs]) == windows([self.SESSION])

    def test_other_events_are_no_logins(self) -> None:
        result = windows([self.SESSION, event("e", T - 1, "message_response", 2.0)])
        assert result["7day"].engagement_score == windows([self.SESSION])["7day"].engagement_score


def test_an_event_may_change_its_type() -> None:
    tutor = TutorFacts("ann", [event("e", T - 1, "message_response", 9.0)])
    tutor.put(event("e", T - 2, "login"))
    assert tutor.windows(T, "upstream")["7day"].response_time_avg_minutes is None
    tutor.put(event("e", T - 2, "profile_view"))
    assert tutor.next_change(0) is None


def test_a_session_and_an_event_may_share_an_id() -> None:
    tutor = TutorFacts("ann", [session("x", part(T - 1)), event("x", T - 1, "message_response", 4.0)])
    tutor.forget_event("x")
    assert tutor.windows(T, "upstream")["7day"].sessions_scheduled == 1
    tutor.put(event("x", T - 1, "message_response", 4.0))
    tutor.forget_session("x")
    assert tutor.windows(T, "upstream")["7day"].response_time_avg_minutes == 4.0


def test_forgetting_the_unknown_does_nothing() -> None:
    tutor = TutorFacts("ann", [session("a", part(T - 1))])
    tutor.forget_session("b")
    tutor.forget_event("a")
    assert tutor.windows(T, "upstream")["7day"].sessions_scheduled == 1


@pytest.mark.parametrize("gone", ["a", "b", "c"])
def test_of_facts_at_one_instant_the_right_one_goes(gone: str) -> None:
    facts = [session(name, part(T - 1), rated(rating)) for name, rating in (("a", 1), ("b", 2), ("c", 4))]
    tutor = TutorFacts("ann", facts)
    tutor.forget_session(gone)
    assert tutor.windows(T, "upstream") == windows([f for f in facts if f.session_id != gone], mode="upstream")

    events = [event(name, T - 1, "message_response", m) for name, m in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    tutor = TutorFacts("ann", events)
    tutor.forget_event(gone)
    assert tutor.windows(T, "upstream") == windows([e for e in events if e.event_id != gone], mode="upstream")


def test_standing_is_the_last_one_put() -> None:
    standing = StandingPart(T, DIGEST, "ann", "Ann", "active")
    tutor = TutorFacts("ann")
    assert tutor.standing is None
    tutor.put(StandingFact("ann", standing))
    assert tutor.standing == standing
    tutor.forget(StandingFact("ann", standing))
    assert tutor.standing is None


@pytest.mark.parametrize(
    "stray",
    [
        SessionFact("bob", "a", None, None),
        EventFact("bob", "e", EventPart(T, DIGEST, "bob", "login", None)),
        StandingFact("bob", StandingPart(T, DIGEST, "bob", "Bob", "active")),
    ],
)
def test_a_fact_addressed_to_another_tutor_is_a_bug(stray: Fact) -> None:
    with pytest.raises(ValueError, match="bob"):
        TutorFacts("ann", [stray])
    with pytest.raises(ValueError, match="bob"):
        TutorFacts("ann").put(stray)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 1e300])
def test_no_stored_score_however_absurd_stops_the_windows(score: float) -> None:
    facts = [session(session_id, part(T - 1, engagement=score)) for session_id in "abc"]
    facts.append(session("d", part(T - 1, engagement=0.5), rated(-(2**31))))
    for mode in ENGAGEMENT_MODES:
        assert windows(facts, mode=mode)["7day"].sessions_scheduled == 4


def test_infinities_stored_by_others_are_no_scores_and_no_response_times() -> None:
    facts: list[Fact] = [session(str(score), part(T - 1, engagement=score)) for score in (math.inf, -math.inf, 0.5)]
    facts += [event(str(minutes), T - 1, "message_response", minutes) for minutes in (math.inf, -math.inf, 3.0)]
    metrics = windows(facts)["7day"]
    assert (metrics.engagement_score, metrics.response_time_avg_minutes) == (round((20 + 20) / 0.6, 2), 3.0)


def vector(
    *sessions: tuple[int, bool, bool, int, float | None, bool | None, bool], ratings: str, logins: int, scale: float = 1
) -> list[Fact]:
    """Facts of a golden vector: (number, no_show, actual_start set, late, engagement, objectives, rescheduled)."""
    facts: list[Fact] = [event(f"login{n}", T - n - 1) for n in range(logins)]
    for n, (number, no_show, started, late, engagement, objectives, rescheduled) in enumerate(sessions):
        held = part(
            T - n - 1,
            is_first=number == 1,
            completed=started and not no_show,
            no_show=no_show,
            rescheduled=rescheduled,
            on_time=late <= 10,
            engagement=None if engagement is None else engagement * scale,
            objectives_met=objectives,
        )
        facts.append(session(f"s{n}", held, rated(int(ratings[n])) if ratings[n] != "-" else None))
    return facts


FIVE_SESSIONS = (
    (1, False, True, 2, 0.8, True, False),
    (2, False, True, 0, 0.9, False, False),
    (1, True, False, 0, 0.0, True, False),
    (3, False, True, 15, 0.7, True, True),
    (1, False, True, 0, None, None, False),
)
RESPONSES = [event(f"r{n}", T - 9, "message_response", minutes) for n, minutes in enumerate((10.0, 25.0, 7.0))]


@pytest.mark.parametrize(
    ("facts", "mode", "expected"),
    [
        (
            [*vector(*FIVE_SESSIONS, ratings="54-3-", logins=3), *RESPONSES],
            "upstream",
            (4, 4.0, 100.0, 20.0, 1, 40.24, 75.0, 14.0, "At Risk"),
        ),
        (
            [*vector(*FIVE_SESSIONS, ratings="54-3-", logins=3, scale=100), *RESPONSES],
            "upstream",
            (4, 4.0, 100.0, 20.0, 1, 64.0, 75.0, 14.0, "Needs Attention"),
        ),
        (
            [*vector(*FIVE_SESSIONS, ratings="54-3-", logins=3), *RESPONSES],
            "normalized",
            (4, 4.0, 100.0, 20.0, 1, 64.0, 75.0, 14.0, "Needs Attention"),
        ),
        (
            vector(*[(1, False, True, 0, 95.0, True, False)] * 8, ratings="555555--", logins=8),
            "upstream",
            (8, 5.0, 100.0, 0.0, 0, 98.0, 100.0, None, "Exemplary"),
        ),
        ([], "upstream", (0, None, None, None, 0, None, None, None, "Developing")),
    ],
    ids=["V1", "V2", "V1 normalized", "V3", "V4"],
)
def test_golden_vectors(facts: list[Fact], mode: EngagementMode, expected: tuple[Any, ...]) -> None:
    for metrics in windows(facts, mode=mode).values():
        assert (
            metrics.sessions_completed,
            metrics.avg_rating,
            metrics.first_session_success_rate,
            metrics.reschedule_rate,
            metrics.no_show_count,
            metrics.engagement_score,
            metrics.learning_objectives_met_pct,
            metrics.response_time_avg_minutes,
            metrics.performance_tier,
        ) == expected
