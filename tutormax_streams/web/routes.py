"""Every route of a worker's web server, as clients need to know it: what it takes, what it answers, and whom.

The documents are made from this table, and a test compares it with the router of a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from models.rows import TIER_NAMES
from tutormax_streams.postgres.stored_figures import SORTS
from tutormax_streams.web import shapes, state_shapes
from tutormax_streams.web.answers import USUAL_WINDOW, WINDOWS
from tutormax_streams.web.lists import MOST_ALERTS, MOST_IDS, MOST_LIMIT, MOST_OFFSET, USUAL_LIMIT, USUAL_SESSIONS
from tutormax_streams.web.lookups import MOST_AGE_SECONDS

Who: TypeAlias = Literal["anyone", "signed in", "staff", "own"]
"""`own`: staff, and the tutor itself."""

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request carries beside its path and method."""

    name: str
    schema: Mapping[str, Any]
    says: str
    where: Literal["path", "query", "header"] = "query"
    required: bool = False
    commas: bool = False  # items of an array stand in one value, separated by commas


@dataclass(frozen=True, slots=True)
class Body:
    """An answer: a type of `shapes`, or a kind of content; None: no content."""

    says: str
    shape: Any = None
    content: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)  # name -> what it says


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    path: str
    name: str
    says: str
    tag: str
    answers: Mapping[int, Body]
    method: str = "get"
    who: Who = "signed in"
    parameters: tuple[Parameter, ...] = ()
    has_twin: bool = False  # the same under /api


WINDOW: Final = Parameter("window", {"enum": [*WINDOWS], "default": USUAL_WINDOW}, "Which window.")
TUTOR_ID: Final = Parameter(
    "tutor_id", {"type": "string", "minLength": 1}, "Whose figures.", where="path", required=True
)
MAX_AGE: Final = Parameter(
    "max_age",
    {"type": "number", "minimum": 0, "maximum": MOST_AGE_SECONDS},
    "Refuse (503) figures of committed rows that are older than so many seconds.",
)
LIST: Final = (
    WINDOW,
    Parameter("tier", {"enum": ["", *TIER_NAMES]}, "Only tutors of this tier. Empty: of any."),
    Parameter("search", {"type": "string"}, "Only tutors whose name holds this text, or whose id begins with it."),
    Parameter(
        "sort",
        {"enum": [sign + name for name in SORTS for sign in ("", "-")], "default": "tutor_id"},
        "The order; with `-` downwards.",
    ),
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": USUAL_LIMIT},
        "How many tutors at most.",
    ),
    Parameter("cursor", {"type": "string"}, "`next_cursor` of a page with the same `sort`. Empty: the first page."),
)
SESSIONS: Final = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": USUAL_SESSIONS},
    "How many sessions at most.",
)
OFFSET: Final = Parameter(
    "offset", {"type": "integer", "minimum": 0, "maximum": MOST_OFFSET, "default": 0}, "How many sessions to pass over."
)
IDS: Final = Parameter(
    "ids",
    # An id with a comma cannot be asked for here: decoded, it looks like two.
    {"type": "array", "items": {"type": "string", "pattern": "^[^,]+$"}, "minItems": 1, "maxItems": MOST_IDS},
    "Which tutors.",
    required=True,
    commas=True,
)
LAST_EVENT_ID: Final = Parameter(
    "Last-Event-ID", {"type": "string"}, "Go on behind this message. Browsers send it by themselves.", where="header"
)

HTML: Final = "text/html"
TAGS: Final = {
    "lookups": "Figures of tutors, from any worker.",
    "changes": "What changes, as it changes. The messages stand in /asyncapi.json.",
    "session": "Who asks.",
    "operations": "Health, and the state of the deployment. No token is needed for health.",
    "pages": "For browsers. They hold no figures; these are asked for with the session.",
}


def _page(path: str, name: str, says: str) -> Route:
    return Route(path, name, says, "pages", {200: Body("the page", content=HTML)}, who="anyone")


ROLE: Final = Parameter("role", {"enum": ["stream", "sink"]}, "Of this role alone.")


def _probe(
    path: str, name: str, says: str, shape: Any, *parameters: Parameter, more: Mapping[int, Body] = MappingProxyType({})
) -> Route:
    answers = {200: Body("yes", shape), 503: Body("not yet, or not now; the body says why", shape), **more}
    return Route(path, name, says, "operations", answers, who="anyone", parameters=parameters)


ROUTES: Final = (
    Route(
        "/tutors",
        "listTutors",
        "A page of tutors with the figures of one window, from committed rows.",
        "lookups",
        {200: Body("the page", shapes.Listing)},
        who="staff",
        parameters=LIST,
        has_twin=True,
    ),
    Route(
        "/tutors/metrics",
        "batchMetrics",
        "One window of several tutors, from committed rows.",
        "lookups",
        {200: Body("those that exist, and the ids that no tutor has", shapes.Batch)},
        who="own",
        parameters=(IDS, WINDOW),
        has_twin=True,
    ),
    Route(
        "/tutors/{tutor_id}/metrics",
        "tutorMetrics",
        "One window of a tutor, as of the request.",
        "lookups",
        {200: Body("the window", shapes.Metrics), 404: Body("there is no such tutor", shapes.Error)},
        who="own",
        parameters=(TUTOR_ID, WINDOW, MAX_AGE),
        has_twin=True,
    ),
    Route(
        "/tutors/{tutor_id}/performance",
        "tutorPerformance",
        "All windows of a tutor, the tier, and which figures make it.",
        "lookups",
        {200: Body("the windows", shapes.Performance), 404: Body("there is no such tutor", shapes.Error)},
        who="own",
        parameters=(TUTOR_ID, MAX_AGE),
        has_twin=True,
    ),
    Route(
        "/tutors/{tutor_id}/trends",
        "tutorTrends",
        "A window as of each of the last 30 days, from the owner's facts; 503 while it recovers.",
        "lookups",
        {200: Body("the days", shapes.Trends), 404: Body("there is no such tutor", shapes.Error)},
        who="own",
        parameters=(TUTOR_ID, WINDOW),
        has_twin=True,
    ),
    Route(
        "/tutors/{tutor_id}/sessions",
        "tutorSessions",
        "The tutor's sessions behind a window's figures, from committed rows.",
        "lookups",
        {200: Body("a page of sessions", shapes.Sessions), 404: Body("there is no such tutor", shapes.Error)},
        who="own",
        parameters=(TUTOR_ID, WINDOW, SESSIONS, OFFSET),
        has_twin=True,
    ),
    Route(
        "/dashboard/analytics",
        "analytics",
        "Counts over all tutors, from committed rows.",
        "lookups",
        {200: Body("the counts", shapes.Analytics)},
        who="staff",
        has_twin=True,
    ),
    Route(
        "/dashboard/alerts",
        "standingAlerts",
        f"Alerts that were raised and stand, the worst first and of these the newest; {MOST_ALERTS} at most.",
        "lookups",
        {200: Body("the alerts", shapes.Alerts)},
        who="staff",
        has_twin=True,
    ),
    Route(
        "/events",
        "events",
        "Server-Sent Events: `metrics`, `tier`, `alert` and `reset`, as they happen; a comment every 15 seconds.",
        "changes",
        {200: Body("a stream that ends after 15 minutes; clients come back by themselves", content="text/event-stream")},
        who="staff",
        parameters=(LAST_EVENT_ID,),
    ),
    Route(
        "/ws/dashboard",
        "socket",
        "The platform's WebSocket. Pages of other origins are refused unless they are listed.",
        "changes",
        {101: Body("the socket is open"), 400: Body("the request asks for no socket", shapes.Error)},
        who="staff",
    ),
    Route(
        "/whoami", "whoami", "Who is signed in, and what they may read.", "session",
        {200: Body("the user", shapes.WhoAmI)},
    ),
    Route(
        "/session",
        "signIn",
        "Exchange a bearer token for the cookie that browsers need.",
        "session",
        {204: Body("signed in", headers={"Set-Cookie": "HttpOnly, SameSite=Strict, for 12 hours at most"})},
        method="post",
    ),
    Route(
        "/session", "signOut", "Take the cookie away.", "session",
        {204: Body("signed out", headers={"Set-Cookie": "an empty one"})}, method="delete", who="anyone",
    ),
    Route(
        "/operations/state",
        "operationsState",
        "Every worker, every partition, and what is wrong in words. Who does not answer in time is listed as silent.",
        "operations",
        {200: Body("the state", state_shapes.Operations)},
        who="staff",
    ),
    Route(
        "/livez", "alive", "Whether the process answers.", "operations",
        {200: Body("it does", state_shapes.Alive)}, who="anyone",
    ),
    _probe(
        "/readyz", "ready", "Whether this worker does its work.", state_shapes.Ready, ROLE,
        more={404: Body("this worker does not have the role", state_shapes.Ready)},
    ),
    _probe("/startupz", "started", "Whether this worker's start is over.", state_shapes.Started),
    Route(
        "/metrics", "prometheus", "Prometheus metrics, listed in docs/telemetry.md.", "operations",
        {200: Body("the exposition format", content="text/plain")}, who="anyone",
    ),
    Route(
        "/version", "versions", "What runs here.", "operations",
        {200: Body("versions", state_shapes.Versions)}, who="anyone",
    ),
    Route("/", "index", "Whether somebody is signed in.", "session", {200: Body("yes", shapes.Index)}),
    _page("/dashboard", "dashboardPage", "Tutors, live."),
    _page("/operations", "operationsPage", "The deployment, for the wall."),
    _page("/docs", "docsPage", "Both documents, for people."),
    Route(
        "/openapi.json", "openapi", "This document.", "pages",
        {200: Body("OpenAPI 3.1", Any)}, who="anyone",
    ),
    Route(
        "/asyncapi.json", "asyncapi", "The document of topics, sockets and events.", "pages",
        {200: Body("AsyncAPI 3.0", Any)}, who="anyone",
    ),
)  # fmt: skip
"""`HEAD` is answered wherever `GET` is. Files of the pages below /static are not listed."""
