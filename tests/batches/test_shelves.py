"""Both kinds of shelf keep one promise; the one on disk also outlives its process, and rot, without telling lies."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches.fakes import the_memory
from tests.faults.of_state import make_endless
from tutormax_streams.batches.shelves import MemoryShelf, RocksShelf, SharedMemory, Shelf, UnreadableShelf

NewShelf = Callable[[], Shelf]


@pytest.fixture(params=["memory", "rocksdb"])
def new_shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewShelf]:
    made: list[Shelf] = []

    def new() -> Shelf:
        on_disk = request.param == "rocksdb"
        made.append(RocksShelf(tmp_path / f"{len(made)}.db", the_memory()) if on_disk else MemoryShelf())
        return made[-1]

    yield new
    for shelf in made:
        shelf.close()


@pytest.fixture
def shelf(new_shelf: NewShelf) -> Shelf:
    return new_shelf()


def open_rocks(path: Path) -> RocksShelf:
    return RocksShelf(path, the_memory())


# -- what both promise ------------------------------------------------------------------------------------------------


def test_a_new_shelf_is_empty_and_knows_no_offset(shelf: Shelf):
    assert shelf.offset is None
    assert shelf.get_many([b"a"]) == [None]
    assert list(shelf.scan(b"")) == []


def test_values_come_back_in_the_order_of_the_keys_asked_for(shelf: Shelf):
    shelf.write([(b"a", b"1"), (b"b", b"")])
    assert shelf.get_many([b"b", b"x", b"a", b"b"]) == [b"", None, b"1", b""]
    assert shelf.get_many([]) == []


def test_the_last_of_several_writes_of_a_key_counts(shelf: Shelf):
    shelf.write([(b"a", b"1"), (b"a", None), (b"b", None), (b"b", b"2")])
    assert shelf.get_many([b"a", b"b"]) == [None, b"2"]


def test_deleting_what_is_not_there_is_nothing(shelf: Shelf):
    shelf.write([(b"a", None)])
    shelf.write([])
    assert shelf.get_many([b"a"]) == [None]


def test_scanning_goes_in_byte_order_from_the_start_on(shelf: Shelf):
    shelf.write([(key, key.upper()) for key in (b"b", b"a\xff", b"a", b"a\x00", b"\xff")])
    assert [key for key, _ in shelf.scan(b"")] == [b"a", b"a\x00", b"a\xff", b"b", b"\xff"]
    assert list(shelf.scan(b"a\x01")) == [(b"a\xff", b"A\xff"), (b"b", b"B"), (b"\xff", b"\xff")]
    assert list(islice(shelf.scan(b"a"), 1)) == [(b"a", b"A")]
    assert list(shelf.scan(b"\xff\xff")) == []


def test_an_offset_is_remembered_with_data_or_alone(shelf: Shelf):
    shelf.write([(b"a", b"1")])
    assert shelf.offset is None
    shelf.write([(b"a", b"2")], 41)
    assert shelf.offset == 41
    shelf.advance(42)
    assert shelf.offset == 42
    assert shelf.get_many([b"a"]) == [b"2"]


def test_the_offset_is_no_entry(shelf: Shelf):
    shelf.write([(b"\x00epoch", b"1")], 7)
    assert list(shelf.scan(b"")) == [(b"\x00epoch", b"1")]


def test_shelves_know_nothing_of_each_other(new_shelf: NewShelf):
    one, other = new_shelf(), new_shelf()
    one.write([(b"a", b"1")], 1)
    assert other.get_many([b"a"]) == [None]
    assert other.offset is None


small_keys = st.binary(min_size=1, max_size=3).filter(lambda key: not key.startswith(b"\x00\x00"))
writes = st.lists(st.lists(st.tuples(small_keys, st.none() | st.binary(max_size=3)), max_size=5), max_size=8)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@given(writes=writes, start=st.binary(max_size=2))
@settings(max_examples=20)
def test_a_shelf_does_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, kind: str, writes: list[list[tuple[bytes, bytes | None]]], start: bytes
):
    shelf: Shelf = MemoryShelf() if kind == "memory" else open_rocks(tmp_path_factory.mktemp("model") / "x.db")
    model: dict[bytes, bytes] = {}
    for batch in writes:
        shelf.write(batch)
        for key, value in batch:
            model.pop(key, None)
            if value is not None:
                model[key] = value
    assert list(shelf.scan(start)) == sorted((k, v) for k, v in model.items() if k >= start)
    asked = [key for batch in writes for key, _ in batch]
    assert shelf.get_many(asked) == [model.get(key) for key in asked]
    shelf.close()


# -- on disk ----------------------------------------------------------------------------------------------------------


def test_data_and_offset_outlive_the_shelf(tmp_path: Path):
    first = open_rocks(tmp_path / "deep" / "a.db")
    first.write([(b"a", b"1"), (b"b", b"2")], 5)
    first.advance(6)
    first.close()
    again = open_rocks(tmp_path / "deep" / "a.db")
    assert again.get_many([b"a", b"b"]) == [b"1", b"2"]
    assert again.offset == 6
    again.close()


KILLED = """
import os, sys
from pathlib import Path
from tutormax_streams.batches.shelves import RocksShelf, SharedMemory
shelf = RocksShelf(Path(sys.argv[1]), SharedMemory())
for n in range(1000):
    shelf.write([(b"%d" % n, b"x" * 100)], n)
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_leaves_offset_and_data_in_agreement(tmp_path: Path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.db")], check=False)
    assert killed.returncode == -9
    shelf = open_rocks(tmp_path / "a.db")
    assert shelf.offset == 999
    assert len(list(shelf.scan(b""))) == 1000
    shelf.close()


def test_a_directory_in_use_is_refused_with_a_sentence_and_left_alone(tmp_path: Path):
    holder = open_rocks(tmp_path / "a.db")
    holder.write([(b"a", b"1")])
    with pytest.raises(RuntimeError, match=r"a\.db is in use by another worker: give every worker its own"):
        open_rocks(tmp_path / "a.db")
    assert holder.get_many([b"a"]) == [b"1"]
    holder.close()


HOLDING = """
import sys
from pathlib import Path
from tutormax_streams.batches.shelves import RocksShelf, SharedMemory
shelf = RocksShelf(Path(sys.argv[1]), SharedMemory())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mark", [None, "a.db.opening", "a.db.damaged"])
def test_a_directory_in_use_by_another_process_is_refused_too(tmp_path: Path, mark: str | None):
    """Also where a mark says to begin anew: it may be of one that was killed before it was refused."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "a.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        if mark is not None:
            (tmp_path / mark).touch()
        with pytest.raises(RuntimeError, match="is in use by another worker"):
            open_rocks(tmp_path / "a.db")
        assert (tmp_path / "a.db" / "CURRENT").exists()
        assert holder.stdin is not None
        holder.stdin.close()


@pytest.mark.parametrize("name", ["MANIFEST-*", "CURRENT"])
def test_what_cannot_be_opened_is_begun_anew(tmp_path: Path, name: str):
    path = tmp_path / "block-of-flats.db"  # the word "lock" in a path or in "block checksum mismatch" is no lock
    filled(path)
    (found,) = path.glob(name)
    found.write_bytes(b"rot" * 40)
    shelf = open_rocks(path)
    assert shelf.offset is None
    assert list(shelf.scan(b"")) == []
    shelf.write([(b"a", b"1")], 1)
    assert shelf.get_many([b"a"]) == [b"1"]
    shelf.close()


OPENING = """
import sys
from pathlib import Path
from tutormax_streams.batches import shelves
shelves.OPENING_SECONDS = float(sys.argv[2])
shelf = shelves.RocksShelf(Path(sys.argv[1]), shelves.SharedMemory())
print("opened with", shelf.offset)
"""


def test_an_opening_that_does_not_end_ends_the_process_and_the_next_start_begins_anew(tmp_path: Path):
    """A record of an unknown kind in RocksDB's list of files is read for ever, with the interpreter's lock held."""
    path = tmp_path / "a.db"
    filled(path)
    (manifest,) = path.glob("MANIFEST-*")
    make_endless(manifest)
    command = [sys.executable, "-c", OPENING, str(path), "20"]
    first = subprocess.run([*command[:-1], "2"], check=False, capture_output=True, text=True, timeout=60)
    assert first.returncode == 1
    assert "in _open" in first.stderr, "it says where"
    second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert second.stdout == "opened with None\n"
    assert "started anew from its changelog" in second.stderr
    assert "came to its end" in second.stderr
    third = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert third.stderr == "", "once"


def test_an_opening_leaves_no_mark_when_it_is_done_or_refused(tmp_path: Path):
    holder = open_rocks(tmp_path / "a.db")
    with pytest.raises(RuntimeError, match="in use by another worker"):
        open_rocks(tmp_path / "a.db")
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    holder.close()


def test_an_offset_that_cannot_be_read_begins_anew(tmp_path: Path):
    filled(tmp_path / "a.db", rotten=slice(500, 4_000))
    shelf = open_rocks(tmp_path / "a.db")
    assert shelf.offset is None
    assert list(shelf.scan(b"")) == []
    shelf.close()


def test_rot_found_while_reading_is_an_error_once_and_begun_anew_the_next_time(tmp_path: Path):
    """Else the worker would crash on it for ever."""
    filled(tmp_path / "a.db", rotten=slice(300_000, 400_000))
    shelf = open_rocks(tmp_path / "a.db")
    assert shelf.offset == 77
    with pytest.raises(UnreadableShelf, match=r"a\.db"):
        shelf.get_many([b"%04d" % n for n in range(5000)])
    shelf.close()
    again = open_rocks(tmp_path / "a.db")
    assert again.offset is None
    again.close()
    once_more = open_rocks(tmp_path / "a.db")
    once_more.write([], 5)
    once_more.close()
    assert open_rocks(tmp_path / "a.db").offset == 5


@pytest.mark.parametrize("step", ["flush", "write"])
def test_rot_that_writing_meets_is_remembered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    class Rotten:
        def flush(self, wait: bool) -> None:
            raise OSError("Corruption: block checksum mismatch")

        def write(self, batch: object) -> None:
            self.flush(wait=False)

    filled(tmp_path / "a.db")
    shelf = open_rocks(tmp_path / "a.db")
    act = shelf.flush if step == "flush" else lambda: shelf.advance(1)
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "_db", Rotten())
        with pytest.raises(UnreadableShelf):
            act()
    shelf.close()
    assert open_rocks(tmp_path / "a.db").offset is None


def test_using_a_closed_shelf_is_no_damage(tmp_path: Path):
    filled(tmp_path / "a.db")
    shelf = open_rocks(tmp_path / "a.db")
    shelf.close()
    with pytest.raises(Exception, match="closed"):
        shelf.get_many([b"0001"])
    again = open_rocks(tmp_path / "a.db")
    assert again.offset == 77
    again.close()


def test_a_scan_over_rot_does_not_end_as_if_there_were_nothing_more(tmp_path: Path):
    filled(tmp_path / "a.db", rotten=slice(300_000, 400_000))
    shelf = open_rocks(tmp_path / "a.db")
    with pytest.raises(UnreadableShelf):
        list(shelf.scan(b""))
    shelf.close()


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_a_list_of_files_that_was_cut_short_leaves_no_hole(tmp_path: Path, sessions: int):
    """The newest writes are in a log of their own, and would be put on top of what the shorter list still knows."""
    path = tmp_path / "a.db"
    for session in range(sessions):
        lived = subprocess.run(
            [sys.executable, "-c", SESSION, str(path), str(session * 100)], check=False, capture_output=True
        )
        assert lived.returncode == 9, lived.stderr
    (manifest,) = path.glob("MANIFEST-*")
    whole = manifest.read_bytes()
    for length in range(0, len(whole), 7):
        copy = tmp_path / f"cut-{length}.db"
        shutil.copytree(path, copy)
        (copy / manifest.name).write_bytes(whole[:length])
        shelf = open_rocks(copy)
        known = 0 if shelf.offset is None else shelf.offset + 1
        assert shelf.get_many([b"%d" % n for n in range(known)]) == [b"value"] * known, length
        shelf.close()


SESSION = """
import os, sys
from pathlib import Path
from tutormax_streams.batches.shelves import RocksShelf, SharedMemory
shelf = RocksShelf(Path(sys.argv[1]), SharedMemory())
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 100):
    shelf.write([(b"%d" % number, b"value")])
    shelf.advance(number)
os._exit(9)
"""


def filled(path: Path, rotten: slice | None = None) -> None:
    """A database of 5,000 values in one file, some of its bytes flipped."""
    shelf = open_rocks(path)
    noise = random.Random(0)  # so that compression leaves something to damage
    shelf.write([(b"%04d" % n, noise.randbytes(200)) for n in range(5000)], 77)
    shelf._db.flush()
    shelf.close()
    if rotten is not None:
        (table,) = path.glob("*.sst")
        content = bytearray(table.read_bytes())
        for at in range(*rotten.indices(len(content)))[::500]:
            content[at] ^= 0xFF
        table.write_bytes(content)


def test_all_shelves_share_one_cache_also_when_they_are_opened_again(tmp_path: Path):
    """rocksdict gives an existing database the options of its own file, with a cache of its own and without filters."""
    capacity = 3 << 20
    for number in range(2):
        RocksShelf(tmp_path / f"{number}.db", SharedMemory(capacity)).close()
    memory = SharedMemory(capacity)
    shelves = [RocksShelf(tmp_path / f"{number}.db", memory) for number in range(2)]
    for shelf in shelves:
        assert shelf._db.property_value("rocksdb.block-cache-capacity") == str(capacity)
        assert shelf._db.property_value("rocksdb.block-cache-usage") == str(memory.cache.get_usage())
        newest = max(shelf.path.glob("OPTIONS-*"))
        assert "filter_policy=bloomfilter" in newest.read_text()
        shelf.close()
