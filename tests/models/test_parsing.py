"""Every byte string has a fate, and the reason is one that a person understands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.events import Feedback, Session, Tutor, TutorEvent
from models.parsing import LARGEST_VALUE_BYTES, REASONS, Accepted, Parser, Rejected
from tests.models.parsing_examples import ABSENT, EXAMPLES, NOW_US, accepted, envelope, parsed, payload, rejected

KINDS = tuple(EXAMPLES)


def fate_of(raw: bytes, kind: str = "session") -> Accepted | Rejected:
    return Parser().parse(kind, raw, NOW_US)


def rejection_of(raw: bytes, kind: str = "session") -> Rejected:
    fate = fate_of(raw, kind)
    assert isinstance(fate, Rejected), fate
    assert fate.reason in REASONS
    return fate


def raw_session(**changes: Any) -> bytes:
    return json.dumps(payload("session", **changes)).encode()


def test_a_value_that_no_topic_of_ours_would_take_is_refused_whatever_it_holds() -> None:
    blank = b" " * (LARGEST_VALUE_BYTES - len(raw_session()))
    assert isinstance(fate_of(raw_session() + blank), Accepted)
    assert rejection_of(raw_session() + blank + b" ").reason == "too_large"
    assert rejection_of(b"\xff" * (LARGEST_VALUE_BYTES + 1)).reason == "too_large"


# --- What is accepted -------------------------------------------------------------------------------------------------


def test_a_tutor_becomes_an_event() -> None:
    assert accepted("tutor").event == Tutor(
        tutor_id="tutor_00001",
        name="Ann Lee",
        email="ann.lee@example.org",
        onboarding_us=1_744_700_728_907_676,
        status="active",
        subjects=("Algebra", "Physics"),
        education_level="PhD",
        location="Porto",
        baseline_sessions_per_week=15.0,
        behavioral_archetype="steady",
        created_us=1_744_700_728_907_676,
        updated_us=NOW_US - 3_600_000_000,
        age=35,
        subject_type="STEM",
        updated_offset_seconds=0,
    )


def test_a_session_becomes_an_event() -> None:
    assert accepted("session").event == Session(
        session_id="7b870d05-9b49-448e-b40c-3481aca6141f",
        tutor_id="tutor_00001",
        student_id="student_00001",
        session_number=2,
        scheduled_start_us=1_795_197_600_000_000,
        actual_start_us=1_795_197_720_000_000,
        duration_minutes=60,
        subject="Algebra",
        session_type="1-on-1",
        tutor_initiated_reschedule=False,
        no_show=False,
        late_start_minutes=0,
        engagement_score=0.862,
        learning_objectives_met=True,
        technical_issues=False,
        created_us=NOW_US - 3_600_000_000 + 931_065,
        updated_us=NOW_US - 3_600_000_000 + 931_066,
        is_first_session=False,
        start_offset_seconds=0,
    )


def test_feedback_becomes_an_event() -> None:
    assert accepted("feedback", improvement_areas=["late"], would_recommend=True).event == Feedback(
        feedback_id="c97bb546-8252-4538-9adf-5d86d2e2b4ce",
        session_id="7b870d05-9b49-448e-b40c-3481aca6141f",
        student_id="student_00001",
        tutor_id="tutor_00001",
        overall_rating=4,
        is_first_session=False,
        subject_knowledge_rating=4,
        communication_rating=5,
        patience_rating=4,
        engagement_rating=4,
        helpfulness_rating=3,
        would_recommend=True,
        improvement_areas=("late",),
        free_text_feedback="Very clear.",
        submitted_us=1_795_248_084_629_933,
        created_us=1_795_248_084_629_933,
    )


def test_a_tutor_event_becomes_an_event() -> None:
    assert accepted("tutor_event").event == TutorEvent(
        event_id="event-1",
        tutor_id="tutor_00001",
        event_type="message_response",
        event_us=1_795_334_400_000_000,
        metadata='{"channel":"chat","response_time_minutes":12.5}',
        created_us=1_795_334_401_000_000,
        response_time_minutes=12.5,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_flawless_payload_has_no_warnings(kind: str) -> None:
    assert accepted(kind).warnings == ()


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keys_are_ignored(kind: str) -> None:
    assert accepted(kind, brand_new=[1, {"a": None}], another="\0") == accepted(kind)


def test_of_a_duplicate_key_the_last_counts() -> None:
    raw = raw_session().replace(b'{"session_id"', b'{"session_number": 77, "session_id"')
    fate = fate_of(raw)
    assert isinstance(fate, Accepted)
    assert isinstance(fate.event, Session)
    assert fate.event.session_number == 2


@pytest.mark.parametrize("kind", KINDS)
def test_values_as_large_as_the_topic_admits_pass_where_nothing_large_is_stored(kind: str) -> None:
    assert accepted(kind, ignored="x" * 900_000) == accepted(kind)


# --- What is no JSON --------------------------------------------------------------------------------------------------

NOT_JSON = {
    "nan in a field": (raw_session(engagement_score=float("nan")), "NaN and Infinity"),
    "infinity in a field": (raw_session(engagement_score=float("inf")), "NaN and Infinity"),
    "minus infinity in a field": (raw_session(engagement_score=float("-inf")), "NaN and Infinity"),
    "nan in an unknown key": (raw_session(unknown=[float("nan")]), "NaN and Infinity"),
    "nan alone": (b"NaN", "NaN and Infinity"),
    "number beyond doubles": (raw_session().replace(b"0.862", b"1e400"), "too large for any double"),
    "lone surrogate in a text": (raw_session(subject="a\ud800"), "lone surrogate"),
    "lone low surrogate": (raw_session(subject="\udc00"), "lone surrogate"),
    "lone surrogate in an unknown key": (raw_session(unknown="\ud800"), "lone surrogate"),
    "lone surrogate in a key": (raw_session(**{"\ud800": 1}), "lone surrogate"),
    "invalid UTF-8": (raw_session().replace(b"Algebra", b"Alg\xffbra"), "not UTF-8: invalid start byte at byte"),
    "surrogate in UTF-8": (raw_session().replace(b"Algebra", b"\xed\xa0\x80"), "not UTF-8"),
    "UTF-16": (json.dumps(EXAMPLES["session"]).encode("utf-16"), "not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + raw_session(), "byte order mark"),
    "raw NUL byte": (raw_session().replace(b"Algebra", b"\x00"), "control character"),
    "cut off": (raw_session()[:-20], "not JSON"),
    "something after it": (raw_session() + b"{}", "not JSON"),
    "python": (repr(EXAMPLES["session"]).encode(), "not JSON"),
    "not even text": (bytes(range(256)), "not UTF-8"),
}


@pytest.mark.parametrize(("raw", "words"), NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_a_dead_letter_that_says_why(raw: bytes, words: str) -> None:
    fate = rejection_of(raw)
    assert fate.reason == "not_json"
    assert words in fate.detail


@pytest.mark.parametrize("raw", [b"", b" ", b"\n\t\r "])
def test_an_empty_value_is_a_dead_letter(raw: bytes) -> None:
    assert rejection_of(raw) == Rejected("empty", "the value is empty")


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"null", "null"),
        (b"true", "a boolean"),
        (b"1.5", "a number"),
        (b'"text"', "a string"),
        (b"[{}]", "an array"),
        (b"[" + raw_session() + b"]", "an array"),
    ],
)
def test_what_is_no_object_is_a_dead_letter(raw: bytes, found: str) -> None:
    assert rejection_of(raw) == Rejected("not_an_object", f"the value is {found}, not an object")


def test_what_is_nested_100_000_deep_is_a_dead_letter() -> None:
    deep = b"[" * 100_000
    for raw in (deep, deep + b"]" * 100_000, b'{"a":' * 100_000, raw_session()[:-1] + b',"a":' + deep):
        assert rejection_of(raw).reason == "too_deep"


@pytest.mark.parametrize(("depth", "reason"), [(254, None), (255, "too_deep"), (900, "too_deep"), (1_024, "too_deep")])
def test_metadata_can_only_be_nested_as_deep_as_it_can_be_written(depth: int, reason: str | None) -> None:
    metadata = b'{"a":' * depth + b"1" + b"}" * depth
    raw = json.dumps(payload("tutor_event", metadata=0)).encode().replace(b'"metadata": 0', b'"metadata": ' + metadata)
    assert getattr(fate_of(raw, "tutor_event"), "reason", None) == reason


# --- NUL --------------------------------------------------------------------------------------------------------------

STORED_TEXTS = [
    *(("tutor", field, "a\0b") for field in ("tutor_id", "name", "education_level", "location")),
    ("tutor", "email", "a\0@example.org"),
    ("tutor", "subjects", ["Algebra", "a\0b"]),
    *(("session", field, "a\0b") for field in ("session_id", "tutor_id", "student_id", "subject")),
    *(("feedback", field, "a\0b") for field in ("feedback_id", "session_id", "student_id", "tutor_id")),
    ("feedback", "free_text_feedback", "a\0b"),
    ("feedback", "improvement_areas", ["a\0b"]),
    *(("tutor_event", field, "a\0b") for field in ("event_id", "tutor_id", "event_type")),
    ("tutor_event", "metadata", {"note": "a\0b"}),
    ("tutor_event", "metadata", {"a\0b": 1}),
    ("tutor_event", "metadata", {"deep": [{"note": "\\\0"}]}),
]


@pytest.mark.parametrize(("kind", "field", "value"), STORED_TEXTS)
def test_nul_in_a_stored_text_is_a_dead_letter(kind: str, field: str, value: Any) -> None:
    assert rejected(kind, **{field: value}) == Rejected("nul", f"{field} holds a NUL character")


def test_nul_where_nothing_is_stored_does_no_harm() -> None:
    assert accepted("session", unknown="a\0b") == accepted("session")
    assert accepted("tutor", name="n" * 200 + "\0").warnings == ("name_truncated",)


def test_a_backslash_before_u0000_is_no_nul() -> None:
    fate = accepted("tutor_event", metadata={"path": "\\u0000"})
    assert isinstance(fate.event, TutorEvent)
    assert fate.event.metadata == '{"path":"\\\\u0000"}'
    assert isinstance(accepted("session", subject="\\u0000").event, Session)


# --- Wrong kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_an_event_on_another_kinds_topic_is_told_by_its_marks(kind: str, other: str) -> None:
    fate = fate_of(json.dumps(EXAMPLES[other]).encode(), kind)
    if kind == other:
        assert isinstance(fate, Accepted)
    else:
        assert isinstance(fate, Rejected)
        assert fate.reason == "wrong_kind"


def test_a_wrong_kind_is_named_with_the_topic_it_stood_on() -> None:
    fate = rejection_of(json.dumps(EXAMPLES["feedback"]).encode(), "session")
    assert fate == Rejected("wrong_kind", "looks like a feedback event on the sessions topic")


def test_an_event_that_bears_its_own_marks_is_incomplete_not_of_another_kind() -> None:
    fate = rejected("session", **EXAMPLES["feedback"], no_show=ABSENT)
    assert fate == Rejected("invalid", "no_show is missing")


# --- The envelope -----------------------------------------------------------------------------------------------------


def opened(value: Any, kind: str = "session") -> Accepted | Rejected:
    return fate_of(json.dumps(value).encode(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_enveloped_payload_is_the_same_event_as_a_bare_one(kind: str) -> None:
    assert opened(envelope(EXAMPLES[kind]), kind) == accepted(kind)
    assert opened(envelope(EXAMPLES[kind], metadata=ABSENT), kind) == accepted(kind)


VECTOR = (
    b'{"id":"1","timestamp":"2026-11-22T14:59:32","channel":"tutormax:sessions","data":{"tutor_id":"tutor_00001",'
    b'"engagement_score":0.9,"note":"\xc3\xa9","n":null,"b":true,"a":[1,2.0]},"checksum":'
    b'"cde700b4b9d058de97dbb00dcbecff8e18f8f194f8443179b51a5d65a6cedf38"}'
)


def test_the_contracts_checksum_vector_holds() -> None:
    assert rejection_of(VECTOR).reason == "invalid"  # the checksum is right, its data is no session
    assert rejection_of(VECTOR.replace(b"2.0", b"2")).reason == "checksum"
    assert rejection_of(VECTOR.replace(b"\xc3\xa9", b"\\u00e9")).reason == "invalid"  # another spelling, the same text


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**30, 1e15, 1e16, 1e22, 1e-7, -0.0, 5e-324, 0.1])
def test_the_checksum_covers_numbers_as_python_spells_them(number: float) -> None:
    assert opened(envelope(payload("session", extra=number))) == accepted("session")


@pytest.mark.parametrize("checksum", ["0" * 64, "", None, 7, ["a"]])
def test_a_wrong_checksum_is_a_dead_letter(checksum: Any) -> None:
    fate = opened(envelope(EXAMPLES["session"], checksum=checksum))
    assert fate == Rejected("checksum", "the checksum is not the SHA-256 of the envelope's data")


def test_a_checksum_in_capitals_is_wrong() -> None:
    right = envelope(EXAMPLES["session"])
    assert getattr(opened(right | {"checksum": right["checksum"].upper()}), "reason", None) == "checksum"


def test_data_that_changed_on_the_way_is_a_dead_letter() -> None:
    sent = envelope(EXAMPLES["session"])
    assert getattr(opened(sent | {"data": payload("session", no_show=True)}), "reason", None) == "checksum"


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (envelope(EXAMPLES["session"], id=ABSENT), "the envelope lacks id"),
        (envelope(EXAMPLES["session"], timestamp=ABSENT, channel=ABSENT), "the envelope lacks timestamp, channel"),
        (envelope(EXAMPLES["session"], checksum=ABSENT), "looks like an envelope but lacks checksum"),
        (envelope(EXAMPLES["session"], data=ABSENT), "looks like an envelope but lacks data"),
        (envelope("text"), "data is not an object"),
        (envelope(None), "data is not an object"),
        (envelope([EXAMPLES["session"]]), "data is not an object"),
        (
            {"data": EXAMPLES["session"], "queued_at": "2026-11-22T14:59:32", "queue": "tutormax:queue:sessions"},
            "lacks id, timestamp, channel, checksum",
        ),
    ],
)
def test_a_damaged_envelope_is_a_dead_letter(damaged: Any, words: str) -> None:
    fate = opened(damaged)
    assert isinstance(fate, Rejected)
    assert fate.reason == "envelope"
    assert words in fate.detail


def test_what_is_in_an_envelope_is_judged_like_a_bare_payload() -> None:
    assert opened(envelope(payload("session", no_show="no"))) == rejected("session", no_show="no")
    assert opened(envelope(payload("session", subject="\0"))) == rejected("session", subject="\0")
    assert opened(envelope(payload("session", unknown="\0"))) == accepted("session")
    assert opened(envelope(EXAMPLES["feedback"])) == fate_of(json.dumps(EXAMPLES["feedback"]).encode())


def test_an_envelope_whose_data_is_too_deep_to_write_is_a_dead_letter() -> None:
    for depth in (255, 1_000):
        data = b'{"a":' * depth + b"1" + b"}" * depth
        raw = json.dumps(envelope({}, data=0)).encode().replace(b'"data": 0', b'"data": ' + data)
        assert rejection_of(raw).reason == "too_deep"


def test_a_bare_payload_may_have_a_data_key_of_its_own() -> None:
    assert accepted("session", data={"a": 1}) == accepted("session")


# --- What a rejection says --------------------------------------------------------------------------------------------


def test_absent_fields_are_reported_alone() -> None:
    fate = rejected("session", no_show=ABSENT, subject=None, session_number="two")
    assert fate == Rejected("invalid", "subject is null; no_show is missing")


def test_all_faulty_fields_are_reported_together() -> None:
    fate = rejected("session", no_show=0, session_number=0)
    assert fate == Rejected("invalid", "session_number must be at least 1; no_show must be true or false")
    fate = rejected(
        "session", created_at="soon", scheduled_start="2099-01-01", late_start_minutes=60, duration_minutes=30
    )
    assert fate == Rejected(
        "invalid",
        "scheduled_start lies more than 31 days ahead; created_at is not an ISO 8601 time of the years 1 to 9999; "
        "late_start_minutes must not exceed duration_minutes",
    )


def test_a_long_list_of_faults_is_cut() -> None:
    fate = rejection_of(b"{}")
    assert fate.detail.startswith("session_id is missing; tutor_id is missing; ")
    assert fate.detail.endswith("; and 6 more")


def test_a_detail_never_quotes_what_a_producer_wrote() -> None:
    secret = "s3cret words"
    for kind in KINDS:
        for field, value in EXAMPLES[kind].items():
            for wrong in (secret, [secret], {secret: secret}, secret * 1_000, [1, secret]):
                if value == wrong:
                    continue
                fate = parsed(kind, **{field: wrong})
                if isinstance(fate, Rejected):
                    assert secret not in fate.detail
    assert secret not in rejection_of(raw_session(subject=secret)[:-5]).detail


def test_a_list_of_300_000_faults_is_refused_at_the_first() -> None:
    fate = rejected("tutor", subjects=[0] * 300_000)
    assert fate == Rejected("invalid", "subjects[0] must be a string")
    assert rejected("tutor", subjects=["Algebra"] * 100_000).detail == "subjects must not have more than 10 items"
