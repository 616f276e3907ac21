"""What has been forgotten cannot rise again: an old version that comes after that is too old to count in any window."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from models import facts, homes
from models.events import Origin, Session, Validated
from models.facts import DAY_US, RETENTION_US
from models.fates import Accepted
from models.homes import SessionHome
from models.parsing import Parser
from models.versions import digest
from models.windows import TutorFacts
from tests.samples import NOW_US, bare, session_payload

AHEAD_DAYS = 31
days = st.integers(-200, 0)


def version(start_us: int, updated_us: int) -> Session:
    """A version as a worker took it at its time, when its start lay no more than 31 days ahead."""
    at_us = max(updated_us, start_us - AHEAD_DAYS * DAY_US)
    outcome = Parser().parse("session", bare(session_payload("s1", "t1", start_us, updated_us)), at_us)
    assert isinstance(outcome, Accepted), outcome
    assert isinstance(outcome.event, Session)
    return outcome.event


def home(session: Session) -> SessionHome:
    made = homes.home_of(Validated(session, digest(session), Origin("sessions", 0, 0, 0), ()))
    assert isinstance(made, SessionHome)
    return made


def counts(session: Session, now_us: int) -> bool:
    """Whether a window of `now_us`, or of any later instant, holds the session, if nothing else is known of it."""
    if homes.too_old(session, now_us):
        return False
    fact = facts.SessionFact("t1", "s1", home(session).session, None)
    return session.scheduled_start_us >= now_us or any(
        window.sessions_completed for window in TutorFacts("t1", [fact]).windows(now_us, "normalized").values()
    )


@given(
    old_updated=days,
    old_ahead=st.integers(-100, AHEAD_DAYS),
    later_by=st.integers(1, 100),
    new_ahead=st.integers(-100, AHEAD_DAYS),
    after=st.integers(0, 50),
)
@example(old_updated=0, old_ahead=AHEAD_DAYS, later_by=1, new_ahead=-1, after=0)
def test_once_the_winner_is_forgotten_a_loser_counts_no_more(
    old_updated: int, old_ahead: int, later_by: int, new_ahead: int, after: int
):
    old_us = NOW_US + old_updated * DAY_US
    new_us = old_us + later_by * DAY_US
    winner = version(new_us + new_ahead * DAY_US, new_us)
    loser = version(old_us + old_ahead * DAY_US, old_us)
    forgotten_us = max(winner.scheduled_start_us, winner.updated_us) + RETENTION_US
    assert homes.expired(home(winner), forgotten_us)
    assert not homes.expired(home(winner), forgotten_us - 1)
    assert not counts(loser, forgotten_us + after * DAY_US)


def test_a_start_planned_further_ahead_of_its_version_is_the_exception():
    """Nobody plans like this; decision 002 says what it would do."""
    old_us, new_us = NOW_US, NOW_US + 1_000_000
    loser = version(old_us + (AHEAD_DAYS + 20) * DAY_US, old_us)
    winner = version(new_us - DAY_US, new_us)
    assert counts(loser, max(winner.scheduled_start_us, winner.updated_us) + RETENTION_US)
