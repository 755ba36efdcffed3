"""One suite for the spool on disk and the one in memory, then tests of the disk only."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_client.spool import SEGMENT_BYTES, DiskSpool, MemorySpool, Spool
from tests.client.fake_transport import record

Make = Callable[[int], Spool]
Open = Callable[[Path, int], DiskSpool]

ROOM = 1 << 20


@pytest.fixture
def on_disk() -> Iterator[Open]:
    """A function that opens spools; they are closed at the end."""
    with ExitStack() as stack:
        yield lambda folder, most: stack.enter_context(closing(DiskSpool(folder, most)))


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path, on_disk: Open) -> Make:
    return (
        MemorySpool if request.param == "memory" else lambda most: on_disk(tmp_path / "spool", most)
    )


def ids(spool: Spool, events: int = 100, size: int = ROOM) -> list[str]:
    return [record.event_id for record in spool.peek(events, size)[0]]


def drain(spool: Spool) -> list[str]:
    """Read and acknowledge records until the spool is empty; return their ids."""
    ids_seen = []
    while ids_read := ids(spool):
        ids_seen += ids_read
        spool.acknowledge(len(ids_read))
    return ids_seen


def test_records_come_in_order_until_acknowledged(make: Make) -> None:
    spool = make(ROOM)
    assert (spool.size, ids(spool)) == (0, [])
    assert spool.append([record(1), record(2)]) == 2
    assert spool.append([record(3)]) == 1
    assert (ids(spool, events=2), ids(spool, events=2)) == (["e1", "e2"], ["e1", "e2"])
    spool.acknowledge(2)
    assert spool.append([record(4)]) == 1
    assert ids(spool)[0] == "e3"
    spool.acknowledge(1)
    assert ids(spool) == ["e4"]
    spool.acknowledge(1)
    assert (spool.size, ids(spool)) == (0, [])
    assert spool.append([record(5)]) == 1
    assert ids(spool) == ["e5"]


def test_the_size_limit_is_exact(make: Make) -> None:
    spool = make(3 * 1050)
    assert spool.append([record(number, size=900) for number in range(5)]) == 3
    assert spool.append([record(9, size=900)]) == 0
    assert ids(spool) == ["e0", "e1", "e2"]
    spool.acknowledge(3)
    assert spool.append([record(9, size=900)]) == 1


def test_a_peek_is_bounded_but_never_empty(make: Make) -> None:
    spool = make(ROOM)
    spool.append([record(number, size=900) for number in range(4)])
    assert ids(spool, size=2200) == ["e0", "e1"]
    assert ids(spool, size=1) == ["e0"]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=12))
def test_the_spool_is_a_queue(steps: list[tuple[int, int]]) -> None:
    spool, expected, number = MemorySpool(ROOM), list[str](), 0
    for added_count, read_count in steps:
        spool.append([record(number + more) for more in range(added_count)])
        expected += [f"e{number + more}" for more in range(added_count)]
        number += added_count
        ids_read = ids(spool, events=read_count)
        assert ids_read == expected[:read_count]
        spool.acknowledge(len(ids_read))
        del expected[: len(ids_read)]


def test_a_partial_write_does_not_affect_the_next_process(on_disk: Open, tmp_path: Path) -> None:
    first = on_disk(tmp_path, ROOM)
    first.append([record(1), record(2), record(3)])
    first.peek(100, ROOM)
    first.acknowledge(1)
    first.close()
    (segment,) = (tmp_path / "0").glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b"no event\n" + record(4).value[:-5])
    again = on_disk(tmp_path, ROOM)
    again.append([record(5)])
    records, entries = again.peek(100, ROOM)
    assert ([record.event_id for record in records], entries) == (["e1", "e2", "e3"], 4), (
        "a partly acknowledged segment is read from its beginning"
    )
    again.acknowledge(4)
    assert ids(again) == ["e5"]
    again.acknowledge(1)
    assert (again.size, list((tmp_path / "0").glob("*.jsonl"))) == (0, [])


def test_segments_are_removed_one_by_one(on_disk: Open, tmp_path: Path) -> None:
    spool = on_disk(tmp_path, 8 << 20)
    for number in range(30):
        assert spool.append([record(number, size=SEGMENT_BYTES // 8)]) == 1
    assert len(list((tmp_path / "0").iterdir())) == 5, "four segments and the lock"
    ids_seen = []
    while ids_read := ids(spool, events=7, size=ROOM):
        ids_seen += ids_read
        spool.acknowledge(len(ids_read))
    assert ids_seen == [f"e{number}" for number in range(30)]
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["lock"]


def test_a_later_process_adopts_the_folders_of_dead_ones(on_disk: Open, tmp_path: Path) -> None:
    first, second = on_disk(tmp_path, ROOM), on_disk(tmp_path, ROOM)
    first.append([record(1)])
    second.append([record(2)])
    third = on_disk(tmp_path, ROOM)
    assert (ids(first), ids(second), ids(third)) == (["e1"], ["e2"], [])
    for spool in (first, second, third):
        spool.close()
    assert sorted(drain(on_disk(tmp_path, ROOM))) == ["e1", "e2"]


def test_only_the_owner_can_read_the_spool(on_disk: Open, tmp_path: Path) -> None:
    on_disk(tmp_path / "spool", ROOM).append([record(1)])
    (segment,) = (tmp_path / "spool" / "0").glob("*.jsonl")
    assert (segment.stat().st_mode & 0o777, segment.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_failed_append_stores_nothing(
    on_disk: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = on_disk(tmp_path, ROOM)
    spool.append([record(1)])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            spool.append([record(2)])
    assert spool.append([record(3)]) == 1
    assert drain(spool) == ["e1", "e3"]


def test_kill_9_loses_no_appended_record(on_disk: Open, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from ratchet_client.spool import DiskSpool
from tests.client.fake_transport import record
spool = DiskSpool(Path({str(tmp_path)!r}), 1 << 24)
for number in range(1000000):
    spool.append([record(number)])
    print(number, flush=True)
"""
    path = os.pathsep.join(["clients/python", "."])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) == 50:
                process.send_signal(signal.SIGKILL)
                break
        printed_count = 50 + len(process.stdout.read().split())
    ids_read = ids(on_disk(tmp_path, ROOM), events=1_000_000)
    assert ids_read == [f"e{number}" for number in range(len(ids_read))]
    assert len(ids_read) > printed_count
