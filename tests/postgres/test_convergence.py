"""Whatever the order, the batches and the number of writers: the tables end with the greatest version of each entity."""

from __future__ import annotations

import asyncio
import random

import pytest

from models.events import Enriched
from models.versions import Version, digest
from tests.postgres.builders import T, feedback, rows, session, tutor, tutor_event
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.kinds import KINDS
from tutormax_streams.postgres.loads import Loader
from tutormax_streams.postgres.records import RecordWriter

TUTORS = ("a", "b", "c")


def arrivals(rng: random.Random) -> list[Enriched]:
    """Versions with many ties, moves between tutors, ratings of one for another's session; all tutors come in the end."""
    made = [tutor(tutor_id, at=T + rng.randrange(4), name=f"v{rng.randrange(3)}") for tutor_id in TUTORS * 3]
    for _ in range(40):
        number, whose, at, text = rng.randrange(6), rng.choice(TUTORS), T + rng.randrange(4), f"v{rng.randrange(3)}"
        match rng.randrange(3):
            case 0:
                made.append(session(f"s{number}", whose, at, subject=text))
            case 1:
                rating = feedback(f"s{number}", whose, at, free_text_feedback=text, feedback_id=f"f{number}-{text}")
                made.append(rating)
            case _:
                made.append(tutor_event(f"e{number}", whose, at, event_type=text))
    made += [session(f"s{number}", "a", T - 1) for number in range(6)]
    made += rng.choices(made, k=15)
    rng.shuffle(made)
    return made


def greatest(made: list[Enriched]) -> dict[tuple[str, str], Version]:
    versions: dict[tuple[str, str], Version] = {}
    for record in made:
        key = (type(record.event).__name__, record.event.home_id)
        versions[key] = max(versions.get(key, (0, b"")), (record.event.version_us, record.digest))
    return versions


async def stored(database: Database) -> dict[tuple[str, str], Version]:
    loader = Loader(database)
    events = [event for kind in KINDS for event in (await loader.page(kind)).events]
    return {(type(event).__name__, event.home_id): (event.version_us, digest(event)) for event in events}


@pytest.mark.parametrize("writers", [1, 3])
async def test_tables_depend_on_the_set_of_events_alone(writers: int, database: Database, postgres: str) -> None:
    for seed in range(12):
        for table in ("tutors", "students", "tutormax_streams.parked"):
            rows(postgres, f"DELETE FROM {table}")
        rng = random.Random(seed)
        made = arrivals(rng)
        batches, start = [], 0
        while start < len(made):
            size = rng.randint(1, 12)
            batches.append(made[start : start + size])
            start += size

        async def work(share: list[list[Enriched]]) -> None:
            writer = RecordWriter(database, lambda: T)
            for batch in share:
                assert (await writer.write(batch)).refused == []

        await asyncio.gather(*(work(batches[n::writers]) for n in range(writers)))
        while (await RecordWriter(database, lambda: T).retry_parked(100)).unparked:
            pass
        assert await stored(database) == greatest(made), f"seed {seed}"
        assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked") == [(0,)]
