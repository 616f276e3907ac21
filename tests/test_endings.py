"""What a worker that has been stopped by a failure says, and the code that it ends with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiokafka.errors import IllegalStateError, LeaderNotAvailableError

from models.layouts import UnknownVersion
from tutormax_streams.batches import ChangelogMadeAnew, DirectoryInUse, UnreadableShelf
from tutormax_streams.watchdog import StoodStill
from tutormax_streams.worker import verdict


@pytest.mark.parametrize(
    ("crash", "code", "words"),
    [
        pytest.param(LeaderNotAvailableError(), 3, "Kafka failed: .*LeaderNotAvailableError", id="Kafka"),
        pytest.param(ChangelogMadeAnew("x", 2), 5, "topic x .*partition 2.*tutormax-streams rebuild", id="state"),
        pytest.param(UnknownVersion("x", 2), 2, "written by a later release; .*tutormax-streams rebuild", id="release"),
        pytest.param(DirectoryInUse(Path("d/x.db")), 2, "x.db is in use by another worker", id="directory"),
        pytest.param(UnreadableShelf("x.db: the next start"), 1, "x.db: the next start", id="damage"),
        pytest.param(StoodStill("agent x"), 75, None, id="watchdog"),
        pytest.param(RuntimeError("boom"), 70, None, id="a bug"),
        pytest.param(IllegalStateError("no seek now"), 70, None, id="a bug that aiokafka found"),
    ],
)
def test_a_failure_has_a_sentence_where_an_operator_can_do_something(
    crash: BaseException, code: int, words: str | None
):
    sentence, found = verdict(crash)
    assert found == code
    if words is None:
        assert sentence is None
    else:
        assert sentence is not None
        assert re.search(words, sentence)
