"""Nothing raises, whatever the bytes; and what is accepted, the rooms behind can work with."""

from __future__ import annotations

import json
import random
from datetime import UTC, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.enrichment import derived
from models.parsing import REASONS, Accepted, Parser, Rejected
from models.rules import WARNINGS
from models.versions import digest
from tests.models.parsing_examples import EXAMPLES, NOW_US, envelope

KINDS = tuple(EXAMPLES)
FIELDS = sorted({field for fields in EXAMPLES.values() for field in fields} | {"would_recommend", "improvement_areas"})
ZONES = (UTC, ZoneInfo("America/New_York"), timezone(timedelta(hours=-23, minutes=-59)))

FUZZ = settings(max_examples=min(settings().max_examples // 8, 2_000))

kinds = st.sampled_from(KINDS)
nows = st.one_of(st.just(NOW_US), st.integers(-(2**63), 2**63 * 1_000))
awkward = st.sampled_from(
    [
        *("", " ", "\0", "\ud800", "é", "a@b.c", "active", "1-on-1", "STEM", "steady", "x" * 51, "x" * 5_001),
        *("2026-11-23", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "2026-11-23T12:00:00.5Z"),
        *("2026-W47-1", "20261123", "2026-11-23T24:00:00"),
        *(0, 1, -1, 5, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400),
        *(0.0, -0.0, 0.5, 1.0, 99.5, 1e16, 5e-324, 1e308, float("nan"), float("inf")),
        *(None, True, False),
    ]
)
json_values = st.recursive(
    st.one_of(awkward, st.text(max_size=20), st.integers(), st.floats(), st.datetimes().map(str)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
changed = st.dictionaries(st.sampled_from([*FIELDS, "checksum", "unknown"]), json_values, max_size=4)


def check(kind: str, raw: bytes, now_us: int = NOW_US) -> Accepted | Rejected:
    fates = [Parser(zone).parse(kind, raw, now_us) for zone in ZONES]
    for fate in fates:
        if isinstance(fate, Rejected):
            assert fate.reason in REASONS
            assert fate.detail
        else:
            assert set(fate.warnings) <= WARNINGS.keys()
            assert len(digest(fate.event)) == 8
            derived(fate.event, NOW_US)
    return fates[0]


@FUZZ
@given(kinds, st.binary(max_size=200), nows)
@example("session", b"\xef\xbb\xbf{}", NOW_US)
@example("session", b'{"data":{},"checksum":0}', NOW_US)
def test_random_bytes_have_a_fate(kind: str, raw: bytes, now_us: int) -> None:
    check(kind, raw, now_us)


@FUZZ
@given(kinds, json_values, nows)
def test_any_json_has_a_fate(kind: str, value: Any, now_us: int) -> None:
    check(kind, json.dumps(value).encode(), now_us)


@FUZZ
@given(kinds, kinds, changed, st.sets(st.sampled_from(FIELDS), max_size=2), nows)
def test_a_payload_with_changed_fields_has_a_fate(
    kind: str, topic: str, changes: dict[str, Any], dropped: set[str], now_us: int
) -> None:
    payload = {field: value for field, value in (EXAMPLES[kind] | changes).items() if field not in dropped}
    check(topic, json.dumps(payload).encode(), now_us)
    check(topic, json.dumps(payload, ensure_ascii=False).encode("utf-8", "surrogatepass"), now_us)


@FUZZ
@given(
    kinds, changed, st.dictionaries(st.sampled_from(("id", "data", "checksum", "metadata")), json_values, max_size=2)
)
def test_an_envelope_with_changed_keys_has_a_fate(kind: str, changes: dict[str, Any], damage: dict[str, Any]) -> None:
    check(kind, json.dumps(envelope(EXAMPLES[kind] | changes) | damage).encode())


@FUZZ
@given(kinds, changed)
def test_a_payload_has_the_same_fate_in_an_envelope_as_without(kind: str, changes: dict[str, Any]) -> None:
    payload = EXAMPLES[kind] | changes
    bare = check(kind, json.dumps(payload).encode())
    enveloped = check(kind, json.dumps(envelope(payload)).encode())
    if isinstance(bare, Accepted):
        assert enveloped == bare
    else:
        assert isinstance(enveloped, Rejected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_valid_value_with_damaged_bytes_has_a_fate(kind: str, wrapped: bool) -> None:
    flawless = json.dumps(envelope(EXAMPLES[kind]) if wrapped else EXAMPLES[kind]).encode()
    rng = random.Random(kind)
    for _ in range(1_000):
        raw = bytearray(flawless)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(raw))
            match rng.randrange(4):
                case 0:
                    raw[place] = rng.randrange(256)
                case 1:
                    raw[place] = rng.choice(b'"\\{}[],:0-9eE.ntfu')
                case 2:
                    del raw[place : place + rng.randint(1, 5)]
                case _:
                    raw[place:place] = raw[place : place + rng.randint(1, 30)]
        check(kind, bytes(raw))
