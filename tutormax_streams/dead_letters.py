"""The operator's side of the dead-letter topic: list what was refused, look at it, mend it, publish it again.

1. A letter is known by its source: topic, partition and offset. The same letter may stand in the log several times.
   One that no single record caused (a figure that PostgreSQL refused) is known by its own place.
2. A replay publishes bytes to the raw topic under the original key; whatever was accepted before wins or loses by its
   version as ever, so a replay too many does no harm.
3. What was replayed is marked by a record without a value under the letter's source in the dead-letter topic, so that
   nobody does it twice by accident. The mark lives as long as the letter.
4. Only events are replayed, and only to raw topics. What stood in a topic of ours says why it is not; `to` may still
   name the raw topic that it was meant for.
5. Before it is published a replay is judged by the validator that the workers use. What it would refuse again is kept
   back unless forced. What PostgreSQL would refuse is not foreseen; it comes back as a letter of its own.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from aiokafka import ConsumerRecord

from models.fates import Rejected
from models.parsing import Parser
from models.payloads import TOPIC_OF
from tutormax_streams import kafka, scans
from tutormax_streams.settings import Settings
from tutormax_streams.topics import RAW, Topics

LETTERS: Final = "dead-letter"
SOURCE_PREFIX: Final = "source-"  # of headers that the raw record had itself
REPLAY_HEADER: Final = "replay-of"
INTERNAL: Final = ("validated", "enriched", "facts", "metrics")  # where letters come from besides raw topics
DATABASE: Final = "database"  # and rows of PostgreSQL, which `rebuild` read
KIND_OF: Final = {topic: kind for kind, topic in TOPIC_OF.items()}


Content: TypeAlias = Literal["original", "normalised", "cut"]
"""What a letter holds: the original bytes; our own form of the event, because the original had left the log by then; or
the beginning of a value that does not fit into a letter."""


class NotReplayable(Exception):
    """The message is a sentence."""


class Place(NamedTuple):
    """Where a record stands: short name of the topic, partition, offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def read(cls, text: str, prefix: str) -> Place:
        """Raises `NotReplayable` for what is no place of a letter."""
        found = re.fullmatch(r"(.+)/(\d+)/(\d+)", text.removeprefix(prefix))
        if found is None or found[1] not in (*RAW, *INTERNAL, LETTERS, DATABASE):
            raise NotReplayable(f"{text!r} is no place of a letter; `dead-letters list` shows them, as sessions/3/120")
        return cls(found[1], int(found[2]), int(found[3]))


@dataclass(frozen=True, slots=True)
class Letter:
    """A refused record, without its bytes unless they were asked for."""

    source: Place
    place: Place  # in the dead-letter topic
    reason: str
    detail: str
    content: Content
    refused_ms: int
    key: bytes | None
    size_bytes: int  # of the whole value, where it was cut too
    source_headers: tuple[tuple[str, bytes | None], ...]
    replayed_ms: int | None = None
    value: bytes | None = None
    sha256: str | None = None  # of the whole value, where it was cut

    @property
    def name(self) -> Place:
        """What `show` and `replay` find it by."""
        return self.source if self.source.partition >= 0 else self.place

    @property
    def replay_of(self) -> str | None:
        """The earlier letter that this one is a replay of."""
        return next(
            (value.decode(errors="replace") for name, value in self.source_headers if name == REPLAY_HEADER and value),
            None,
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters. Everything given must fit; `places` name a letter by its source or by its own place."""

    places: frozenset[Place] = frozenset()
    reasons: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    replayed: bool = False  # those that were replayed, too

    def holds(self, letter: Letter) -> bool:
        if self.places and not self.places & {letter.source, letter.place}:
            return False
        if letter.replayed_ms is not None and not (self.replayed or self.places):
            return False
        return (not self.reasons or letter.reason in self.reasons) and (
            not self.topics or letter.source.topic in self.topics
        )


async def collect(settings: Settings, selection: Selection, *, values: bool = False) -> list[Letter]:
    """The selected letters, the newest last; with their bytes if `values`. Raises `KafkaAway`, `NoSuchTopic`."""
    found: dict[Place, Letter] = {}
    replayed: dict[Place, int] = {}
    async for record in scans.scan(settings, [Topics.of(settings).dead_letter]):
        headers = _own_headers(record)
        source = _source(headers)
        if source is None:
            continue
        if record.value is None:
            replayed[source] = _whole(headers, "replayed-at-ms", record.timestamp)
        else:
            wanted = values and (not selection.places or {source, _place(record)} & selection.places)
            letter = _letter(record, source, headers, keep_value=bool(wanted))
            found[letter.name] = letter
    letters = [_with_mark(letter, replayed.get(letter.source)) for letter in found.values()]
    return sorted((letter for letter in letters if selection.holds(letter)), key=lambda letter: letter.refused_ms)


Mend = Callable[[bytes], bytes]
"""Makes new bytes of a letter's. Raises `NotReplayable`."""


def patching(patch: Mapping[str, Any]) -> Mend:
    """A JSON merge patch (RFC 7396) of the event. Out of an envelope comes its bare event, since the checksum is void."""

    def mend(value: bytes) -> bytes:
        try:
            payload = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise NotReplayable(
                "a merge patch needs JSON, and the letter is none: edit it in a file instead"
            ) from error
        if isinstance(payload, dict) and "checksum" in payload and isinstance(payload.get("data"), dict):
            payload = payload["data"]
        return json.dumps(_merged(payload, patch)).encode()

    return mend


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became, or would become, of a letter."""

    letter: Letter
    fate: Literal["replayed", "accepted", "refused", "not replayable"]  # accepted: would be, in a dry run
    detail: str = ""


async def replay(
    settings: Settings,
    letters: Iterable[Letter],
    *,
    mend: Mend | None = None,
    new_value: bytes | None = None,
    to: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> list[Outcome]:
    """Publish letters (collected with values) again, mended by `mend` or replaced by `new_value`, to their own raw topic
    or to topic `to`. Raises `KafkaAway`."""
    names, parser = Topics.of(settings), Parser(settings.zone)
    outcomes: list[Outcome] = []
    async with kafka.producer(settings) as producer:
        for letter in letters:
            topic = to or letter.source.topic
            try:
                value = _published(letter, to, new_value, mend)
            except NotReplayable as error:
                outcomes.append(Outcome(letter, "not replayable", str(error)))
                continue
            refusal = foreseen_refusal(parser, topic, value)
            if refusal is not None and not force:
                outcomes.append(Outcome(letter, "refused", refusal))
                continue
            if dry_run:
                outcomes.append(Outcome(letter, "accepted", refusal or ""))
                continue
            headers = [(name, held) for name, held in letter.source_headers if name != REPLAY_HEADER]
            headers.append((REPLAY_HEADER, str(letter.source).encode()))
            sent = await producer.send_and_wait(names.raw(topic), value, key=letter.key, headers=headers)
            again = Place(topic, sent.partition, sent.offset)
            mark = _mark(letter.source, again)
            await producer.send_and_wait(names.dead_letter, None, key=str(letter.source).encode(), headers=mark)
            outcomes.append(Outcome(letter, "replayed", f"as {again}"))
    return outcomes


def foreseen_refusal(parser: Parser, topic: str, value: bytes) -> str | None:
    """Why the workers would refuse the bytes again, or None."""
    if topic not in KIND_OF:
        return f"there is no raw topic {topic}: choose one of {', '.join(RAW)}"
    fate = parser.parse(KIND_OF[topic], value, time.time_ns() // 1000)
    return f"{fate.reason}: {fate.detail}" if isinstance(fate, Rejected) else None


def readable(value: bytes) -> str:
    """Bytes for a person: JSON laid out, other text as it is, else a table of hexadecimal digits."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _hexadecimal(value)
    laid_out = _laid_out(text)
    if laid_out is not None:
        return laid_out
    return text if all(c.isprintable() or c in "\r\n\t" for c in text) else _hexadecimal(value)


def _laid_out(text: str) -> str | None:
    """JSON with a line for each field, or None for what is none or hides a lone surrogate behind an escape."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False).encode().decode()
    except (ValueError, RecursionError):
        return None


def _hexadecimal(value: bytes, most: int = 4096) -> str:
    lines = [
        f"{start:08x}  {row.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
        for start in range(0, min(len(value), most), 16)
        if (row := value[start : min(start + 16, most)])
    ]
    return "\n".join([*lines, f"... {len(value) - most:,} bytes more"] if len(value) > most else lines)


def _published(letter: Letter, to: str | None, new_value: bytes | None, mend: Mend | None) -> bytes:
    """What a replay publishes. Raises `NotReplayable`."""
    if (to or letter.source.topic) not in RAW:
        raise NotReplayable(_no_raw_topic(letter, to))
    return new_value if new_value is not None else _mended(letter, mend)


def _no_raw_topic(letter: Letter, to: str | None) -> str:
    """Why it is not published where it came from, or not to `to`."""
    if to is not None:
        return f"there is no raw topic {to}: choose one of {', '.join(RAW)}"
    topic = letter.source.topic
    if topic == DATABASE:
        return "it is a row of PostgreSQL and no record: mend the row there; `rebuild` reads it again"
    if topic == "metrics" and letter.content == "normalised":
        return (
            "it is a tutor's figures, which PostgreSQL refused, and no event: mend what the detail names; the tutor's "
            "next figures come by themselves within 15 minutes"
        )
    return (
        f"it stood in {topic}, where only workers write: if it is an event, name the raw topic that it was meant for "
        "with --to TOPIC"
    )


def _mended(letter: Letter, mend: Mend | None) -> bytes:
    if letter.content == "cut" and (letter.value is None or len(letter.value) < letter.size_bytes):
        raise NotReplayable(
            f"only the beginning of its {letter.size_bytes:,} bytes was kept, the rest does not fit into a letter: let "
            "its producer send it smaller, or give the event with --with FILE"
        )
    if letter.content == "normalised":
        raise NotReplayable("the original had left the log when it was refused: give the event with --with FILE")
    assert letter.value is not None
    return letter.value if mend is None else mend(letter.value)


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _mark(source: Place, again: Place) -> list[tuple[str, bytes]]:
    fields = {
        "topic": source.topic,
        "partition": str(source.partition),
        "offset": str(source.offset),
        "replayed-at-ms": str(time.time_ns() // 1_000_000),
        "replayed-as": str(again),
    }
    return [(name, value.encode()) for name, value in fields.items()]


def _own_headers(record: ConsumerRecord) -> dict[str, str]:
    return {
        name: value.decode(errors="replace")
        for name, value in record.headers or ()
        if value is not None and not name.startswith(SOURCE_PREFIX)
    }


def _source(headers: Mapping[str, str]) -> Place | None:
    try:
        return Place(headers["topic"], int(headers["partition"]), int(headers["offset"]))
    except (KeyError, ValueError):
        return None  # nothing that we wrote


def _whole(headers: Mapping[str, str], name: str, otherwise: int) -> int:
    text = headers.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def _content(headers: Mapping[str, str]) -> Content:
    match headers.get("content"):
        case "normalised" | "cut" as content:
            return content
        case _:
            return "original"


def _place(record: ConsumerRecord) -> Place:
    return Place(LETTERS, record.partition, record.offset)


def _letter(record: ConsumerRecord, source: Place, headers: Mapping[str, str], *, keep_value: bool) -> Letter:
    return Letter(
        source=source,
        place=_place(record),
        reason=headers.get("reason", ""),
        detail=headers.get("detail", ""),
        content=_content(headers),
        refused_ms=_whole(headers, "refused-at-ms", record.timestamp),
        key=record.key,
        size_bytes=_whole(headers, "content-bytes", len(record.value)),
        source_headers=tuple(
            (name.removeprefix(SOURCE_PREFIX), value)
            for name, value in record.headers or ()
            if name.startswith(SOURCE_PREFIX)
        ),
        value=record.value if keep_value else None,
        sha256=headers.get("content-sha256"),
    )


def _with_mark(letter: Letter, replayed_ms: int | None) -> Letter:
    return letter if replayed_ms is None else replace(letter, replayed_ms=replayed_ms)
