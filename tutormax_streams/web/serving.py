"""Everything that a worker serves over HTTP beside health and metrics, put together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import faust

from agents.aggregate import Aggregate
from tutormax_streams.batches import bound_idle_connections
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.stored_figures import StoredFigures
from tutormax_streams.settings import Settings
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.topics import Topics
from tutormax_streams.web import docs_page, lookups, operations, pages, push
from tutormax_streams.web.access import Access, User
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.feed import Feed
from tutormax_streams.web.guard import MOST_REQUEST_BYTES, Limiter, guard
from tutormax_streams.web.lists import Lists
from tutormax_streams.web.lookups import Lookups
from tutormax_streams.web.members import Members
from tutormax_streams.web.operations import Operations
from tutormax_streams.web.owners import Owners
from tutormax_streams.web.push import Push
from tutormax_streams.web.worker_state import WorkerState

logger = logging.getLogger(__name__)

SESSIONS = 4  # of PostgreSQL, opened when they are needed


def serve(
    app: faust.App,
    settings: Settings,
    step: Aggregate,
    telemetry: Telemetry,
    clock: Callable[[], int],
    unsure: Callable[[], list[str]],
    state: WorkerState,
    members: Members,
) -> None:
    """Add it to `app`, whose web server must not have been touched yet. `unsure`: see `Owners`."""
    stored, access = _guarded(app, settings, clock)
    lists = Lists(stored, clock)
    owners = Owners(app, step, settings.kafka_partitions, unsure)
    answering = Lookups(owners, stored, access.vouch, clock, telemetry)
    operating = Operations(state, members, owners.urls, settings.kafka_partitions, clock)
    topics = Topics.of(settings)
    feed = Feed(settings, topics.metrics, topics.alerts, settings.kafka_partitions)
    lookups.attach(app, answering, lists)
    push.attach(app, Push(feed, lists.totals, clock, Cors(settings.web_cors_origins)))
    pages.attach(app, access, clock)
    docs_page.attach(app)
    operations.attach(app, operating, pages.STATIC)

    async def close(*_: Any, **__: Any) -> None:
        # Before the web server stops: it would wait a minute for clients that never hang up.
        await feed.close()
        await answering.close()
        await operating.close()

    app.on_before_shutdown.connect(close)


def serve_state(
    app: faust.App, settings: Settings, clock: Callable[[], int], state: WorkerState, members: Members
) -> None:
    """What a worker without tables serves: its state, and what it knows of the others. As for `serve`."""
    _guarded(app, settings, clock)
    operating = Operations(state, members, dict, settings.kafka_partitions, clock)
    operations.attach(app, operating, None)

    async def close(*_: Any, **__: Any) -> None:
        await operating.close()

    app.on_before_shutdown.connect(close)


def _guarded(app: faust.App, settings: Settings, clock: Callable[[], int]) -> tuple[StoredFigures, Access]:
    """Put the guard before everything that `app` serves: committed rows, and who may read them."""
    database = Database(settings.conninfo, size=SESSIONS, application_name="tutormax-streams-lookups")
    stored = StoredFigures(database)

    async def user(user_id: int) -> User | None:
        row = await stored.user(user_id)
        if row is None:
            return None
        identity, full_name, is_active, is_superuser, roles, tutor_id = row
        return User(identity, full_name, is_active, is_superuser, tuple(roles or ()), tutor_id)

    secret_key = settings.secret_key.get_secret_value() if settings.secret_key else None
    access = Access(secret_key, user)
    if access.closed_because:
        logger.warning("lookups and the dashboard are closed: %s", access.closed_because)
    cors = Cors(settings.web_cors_origins)
    app.conf.web_application_options = {
        "middlewares": [guard(access, Limiter(settings.web_rate_per_minute), clock, cors)],
        "client_max_size": MOST_REQUEST_BYTES,
    }
    server: Any = app.web
    server.web_app.on_response_prepare.append(cors.on_prepare)
    bound_idle_connections(app)

    async def close(*_: Any, **__: Any) -> None:
        await database.close()

    app.on_before_shutdown.connect(close)
    return stored, access
