"""Dead letters without Kafka: places, merge patches, and how bytes are shown. The rest is in tests/flow."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from typer.testing import CliRunner, Result

from models.events import Origin
from models.parsing import LARGEST_VALUE_BYTES, Parser
from tests.samples import NOW_US, bare, enveloped, session_payload
from tutormax_streams.cli import app
from tutormax_streams.dead_letters import (
    Letter,
    NotReplayable,
    Place,
    Selection,
    collect,
    foreseen_refusal,
    patching,
    readable,
)
from tutormax_streams.refusals import KEPT_BYTES, DeadLetterBox
from tutormax_streams.settings import Settings
from tutormax_streams.topics import LARGEST_BYTES, Topics

LETTER = Letter(
    source=Place("sessions", 3, 120),
    place=Place("dead-letter", 0, 7),
    reason="invalid",
    detail="",
    content="original",
    refused_ms=0,
    key=None,
    size_bytes=2,
    source_headers=(),
)


@pytest.mark.parametrize("topic", ["validated", "enriched", "facts", "metrics", "database", "dead-letter"])
def test_places_in_our_own_topics_are_read_too(topic: str):
    assert Place.read(f"{topic}/1/2", "tutormax.") == (topic, 1, 2)


@pytest.mark.parametrize("text", ["sessions/3/120", "tutormax.sessions/3/120"])
def test_a_place_is_read_with_and_without_the_prefix(text: str):
    assert Place.read(text, "tutormax.") == ("sessions", 3, 120)
    assert str(Place.read(text, "tutormax.")) == "sessions/3/120"


@pytest.mark.parametrize(
    "text", ["sessions", "sessions/3", "elsewhere/1/2", "metrics/-1/2", "sessions/-1/2", "sessions/a/b", "/1/2", ""]
)
def test_what_is_no_place_of_a_letter_is_refused(text: str):
    with pytest.raises(NotReplayable, match="no place of a letter"):
        Place.read(text, "tutormax.")


# RFC 7396, appendix A, the cases whose original is an object.
RFC_CASES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("original", "patch", "expected"), RFC_CASES)
def test_a_fix_is_a_json_merge_patch(original: Any, patch: Any, expected: Any):
    assert json.loads(patching(patch)(json.dumps(original).encode())) == expected


def test_a_fix_takes_the_event_out_of_its_envelope():
    payload = session_payload("s1", "t1", NOW_US, NOW_US)
    mended = patching({"subject": "Algebra"})(enveloped(payload, random.Random(1), checksum="damaged"))
    assert json.loads(mended) == {**payload, "subject": "Algebra"}


def test_a_fix_keeps_the_spelling_of_numbers_and_reaches_what_is_no_json_of_the_rfc():
    assert patching({"a": 1})(b'{"a": NaN, "b": 123456789012345678901234567890, "c": 2.0}') == (
        b'{"a": 1, "b": 123456789012345678901234567890, "c": 2.0}'
    )


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_cannot_be_fixed_is_told(value: bytes):
    with pytest.raises(NotReplayable, match="merge patch needs JSON"):
        patching({})(value)


def test_a_refusal_is_foreseen_by_the_workers_own_parser():
    good = bare(session_payload("s1", "t1", NOW_US, NOW_US))
    assert foreseen_refusal(Parser(), "sessions", good) is None
    assert (foreseen_refusal(Parser(), "feedback", good) or "").startswith("wrong_kind")
    assert (foreseen_refusal(Parser(), "facts", good) or "").startswith("there is no raw topic facts")


def test_replayed_letters_are_out_of_sight_unless_they_are_named_or_asked_for():
    replayed = Letter(**{field: getattr(LETTER, field) for field in LETTER.__slots__} | {"replayed_ms": 1})
    assert Selection().holds(LETTER)
    assert not Selection().holds(replayed)
    assert Selection(replayed=True).holds(replayed)
    assert Selection(frozenset({replayed.source})).holds(replayed)
    assert Selection(frozenset({replayed.place})).holds(replayed)


def test_all_filters_must_fit():
    assert Selection(reasons=frozenset({"invalid"}), topics=frozenset({"sessions"})).holds(LETTER)
    assert not Selection(reasons=frozenset({"invalid"}), topics=frozenset({"feedback"})).holds(LETTER)
    assert not Selection(reasons=frozenset({"not_json"})).holds(LETTER)


def test_json_is_laid_out_text_is_left_and_bytes_become_a_table():
    assert readable('{"a":"é"}'.encode()) == '{\n  "a": "é"\n}'
    assert readable(b"{not json") == "{not json"
    assert readable(b"\xff\x00A").startswith("00000000  ff 00 41")
    assert readable(b'{"a":"\\ud800"}') == '{"a":"\\ud800"}'
    assert readable(b"nul \x00").startswith("00000000  6e 75 6c")
    assert readable(b"\xff" * 5000).endswith("... 904 bytes more")


# -- the commands, on a log that is played ----------------------------------------------------------------------------


class Played:
    """The dead-letter topic, and what was published meanwhile."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.published: list[tuple[str, bytes | None]] = []
        self.headers: list[Any] = []

    def letter(self, topic: str, partition: int, offset: int, value: bytes, **headers: str) -> None:
        fields = {"topic": topic, "partition": str(partition), "offset": str(offset), "content": "original"} | headers
        self.records.append(
            SimpleNamespace(
                partition=0, offset=len(self.records), timestamp=1, key=None, value=value,
                headers=[(name, text.encode()) for name, text in fields.items()],
            )
        )  # fmt: skip

    async def scan(self, *args: Any) -> AsyncIterator[Any]:
        for record in self.records:
            yield record

    @asynccontextmanager
    async def producer(self, *args: Any) -> AsyncIterator[Played]:
        yield self

    async def send_and_wait(self, topic: str, value: bytes | None, **rest: Any) -> Any:
        self.published.append((topic, value))
        self.headers.append(rest["headers"])
        return SimpleNamespace(partition=0, offset=0)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["dead-letters", *arguments], env={})


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    log = Played()
    monkeypatch.setattr("tutormax_streams.scans.scan", log.scan)
    monkeypatch.setattr("tutormax_streams.kafka.producer", log.producer)
    log.letter("sessions", 1, 5, b"rubbish", reason="not_json")
    log.letter("validated", 3, 120, bare(session_payload("s1", "t1", NOW_US, NOW_US)), reason="internal")
    log.letter("metrics", -1, 7, b'{"tutor_id": "t1"}', reason="refused_by_database", content="normalised")
    log.letter("metrics", -1, 7, b'{"tutor_id": "t2"}', reason="refused_by_database", content="normalised")
    log.letter("database", 0, 9, b"{}", reason="enrichment", content="normalised")
    return log


def test_every_letter_is_shown_under_the_name_that_it_is_listed_by(played: Played):
    letters = [json.loads(line) for line in played.run("list", "--json").stdout.splitlines()]
    assert [letter["letter"] for letter in letters] == [
        "sessions/1/5", "validated/3/120", "dead-letter/0/2", "dead-letter/0/3", "database/0/9"
    ]  # fmt: skip
    assert [letter["topic"] for letter in letters] == ["sessions", "validated", "metrics", "metrics", "database"]
    for letter, record in zip(letters, played.records, strict=True):
        shown = played.run("show", letter["letter"], "--raw")
        assert shown.exit_code == 0, shown.output
        assert shown.stdout_bytes == record.value


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("validated/3/120", "only workers write"),
        ("dead-letter/0/2", "no event: mend what the detail names"),
        ("database/0/9", "mend the row there"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_event_is_not_replayed_and_says_why(played: Played, name: str, told: str, force: bool):
    tried = played.run("replay", name, *(["--force"] if force else []))
    assert tried.exit_code == 1
    assert f"{name}  kept back: " in tried.stdout
    assert told in tried.stdout
    assert not played.published


def test_an_event_that_was_written_into_a_topic_of_ours_is_replayed_to_its_raw_topic(played: Played):
    replayed = played.run("replay", "validated/3/120", "--to", "sessions")
    assert replayed.exit_code == 0, replayed.output
    assert played.published[0] == ("tutormax.sessions", played.records[1].value)


def test_nothing_is_ever_published_to_a_topic_of_ours(played: Played):
    tried = played.run("replay", "validated/3/120", "--to", "facts", "--force")
    assert tried.exit_code == 1
    assert "there is no raw topic facts" in tried.stdout
    assert not played.published


def test_a_letter_that_was_cut_says_so_and_is_not_replayed_without_a_file(played: Played, tmp_path: Path):
    more = {"content-bytes": "9437184", "content-sha256": "5e" * 32}
    played.letter("feedback", 2, 9, b'{"improvement_areas": ["', reason="too_large", content="cut", **more)
    shown = played.run("show", "feedback/2/9").stdout
    assert "of its value the beginning was kept" in " ".join(shown.split())
    assert "9437184" in shown
    assert "5e" * 32 in shown
    tried = played.run("replay", "feedback/2/9", "--force")
    assert tried.exit_code == 1
    assert "kept back: only the beginning of its 9,437,184 bytes was kept" in tried.stdout
    assert not played.published
    (tmp_path / "event").write_bytes(b"{}")
    assert played.run("replay", "feedback/2/9", "--with", str(tmp_path / "event"), "--force").exit_code == 0
    assert played.published[0] == ("tutormax.feedback", b"{}")


def test_headers_without_a_value_are_shown_as_what_they_are_and_replayed(played: Played):
    """Kafka allows them."""
    played.letter("sessions", 2, 9, bare(session_payload("s9", "t1", NOW_US, NOW_US)), reason="error")
    played.records[-1].headers += [("source-trace", None), ("source-replay-of", None), ("theirs", None)]
    letters = [json.loads(line) for line in played.run("list", "--json").stdout.splitlines()]
    assert letters[-1]["headers"] == {"trace": None, "replay-of": None}
    shown = played.run("show", "sessions/2/9")
    assert shown.exit_code == 0, shown.output
    assert "trace" in shown.stdout
    replayed = played.run("replay", "sessions/2/9")
    assert replayed.exit_code == 0, replayed.output
    assert played.headers[0] == [("trace", None), ("replay-of", b"sessions/2/9")]
    (letter,) = asyncio.run(collect(Settings(), Selection(frozenset({Place("sessions", 2, 9)}))))
    assert letter.replay_of is None


# -- what workers write ------------------------------------------------------------------------------------------------

BIG = 8 << 20


class Sent:
    """The one letter that was sent."""

    async def send(self, topic: str, value: bytes, key: bytes | None = None, headers: Any = ()) -> Any:
        self.value, self.key, self.headers = value, key, dict(headers)
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, list(headers))
        assert size <= LARGEST_BYTES
        return asyncio.get_running_loop().create_future()


async def letter_of(value: bytes, key: bytes | None = None, headers: Any = ()) -> Sent:
    sent = Sent()
    record = SimpleNamespace(partition=2, offset=9, timestamp=1, key=key, value=value, headers=headers)
    box = DeadLetterBox(Topics("", ""), sender=sent, reader=None)  # type: ignore[arg-type]
    await box.refuse_record(record, "feedback", "too_large", "why")
    return sent


async def test_the_largest_value_that_a_raw_topic_may_hold_is_kept_whole():
    sent = await letter_of(b"x" * LARGEST_VALUE_BYTES, b"key", [("trace", None), ("mine", b"1")])
    assert len(sent.value) == LARGEST_VALUE_BYTES
    assert (sent.key, sent.headers["content"]) == (b"key", b"original")
    assert (sent.headers["source-trace"], sent.headers["source-mine"]) == (None, b"1")


@pytest.mark.parametrize(
    ("value", "key", "header", "kept"),
    [
        (b"x" * BIG, b"key", b"1", (KEPT_BYTES, b"key", True)),
        (b"x", b"k" * BIG, b"1", (1, None, True)),
        (b"x", b"key", b"h" * BIG, (1, b"key", False)),
        (b"x" * BIG, b"k" * BIG, b"h" * BIG, (KEPT_BYTES, None, False)),
    ],
    ids=["value", "key", "headers", "all"],
)
async def test_what_does_not_fit_into_a_letter_is_cut(value: bytes, key: bytes, header: bytes, kept: Any):
    sent = await letter_of(value, key, [("mine", header)])
    assert (len(sent.value), sent.key, "source-mine" in sent.headers) == kept
    assert sent.headers["content"] == b"cut"
    assert int(sent.headers["content-bytes"]) == len(value)
    assert sent.headers["content-sha256"].decode() == sha256(value).hexdigest()
    assert (sent.headers["topic"], sent.headers["partition"], sent.headers["offset"]) == (b"feedback", b"2", b"9")


async def test_an_event_of_which_only_our_own_form_is_left_is_cut_too():
    sent = Sent()
    box = DeadLetterBox(Topics("", ""), sender=sent, reader=None)  # type: ignore[arg-type]
    await box.refuse_event(Origin("database", 0, 1, 2), b"x" * BIG, "enrichment", "why")
    assert (len(sent.value), sent.headers["content"]) == (KEPT_BYTES, b"cut")
