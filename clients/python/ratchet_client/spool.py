"""Spool of unsent events, in order: on disk, where it survives the process, or in memory.

The spool folder has a folder per target, and in it one folder per running process, `0`, `1`, ...,
owned through a file lock that ends with the process. Each contains segments of JSON Lines, which
are removed when all their events are sent. The next process adopts the segments of a dead one from
the beginning of the first: events may be sent twice, with the same ids.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from ratchet_client.event import FeedbackRecord, parse_line

SEGMENT_BYTES = 1 << 20


class Spool(Protocol):
    """Records in order, bounded in bytes."""

    @property
    def size(self) -> int:
        """Pending bytes; 0 when empty."""

    def append(self, records: Sequence[FeedbackRecord]) -> int:
        """Store records durably; return how many of them, from the first, fit.

        Raises OSError, with nothing stored.
        """

    def peek(self, events: int, size: int) -> tuple[list[FeedbackRecord], int]:
        """Return the oldest records, at most `events` and `size` bytes but at least one unless
        empty, and the number of entries read, including unreadable ones.
        """

    def acknowledge(self, entries: int) -> None:
        """Remove the oldest `entries`, which were returned by `peek`."""

    def close(self) -> int:
        """Close the spool; return the number of lost records."""


class MemorySpool:
    """Spool that survives an outage, not the process."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._records: deque[FeedbackRecord] = deque()
        self.size = 0

    def append(self, records: Sequence[FeedbackRecord]) -> int:
        for kept, record in enumerate(records):
            if self.size + len(record.value) > self._most_bytes:
                return kept
            self._records.append(record)
            self.size += len(record.value)
        return len(records)

    def peek(self, events: int, size: int) -> tuple[list[FeedbackRecord], int]:
        count = _count_within((len(record.value) for record in self._records), events, size)
        return list(islice(self._records, count)), count

    def acknowledge(self, entries: int) -> None:
        for _ in range(entries):
            self.size -= len(self._records.popleft().value)

    def close(self) -> int:
        return len(self._records)


class DiskSpool:
    """Spool that survives kill -9 of the process, and a crash of the machine if its disk honours
    fsync.

    Raises OSError when the folder cannot be used. Only its owner can read it.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._folder, self._lock = _claim_folder(folder)
        segments = sorted(self._folder.glob("*.jsonl")) + list(
            _adopt_orphaned_segments(folder, self._folder)
        )
        self._segments: deque[Path] = deque(segments)
        self._sizes = {path: path.stat().st_size for path in segments}
        for path in [path for path, size in self._sizes.items() if not size]:
            self._remove(path)
        self._number = int(segments[-1].stem) if segments else 0
        self._writer: FileIO | None = None
        self._lines: deque[bytes] = deque()
        self._read_to = 0

    @property
    def size(self) -> int:
        return sum(self._sizes.values())

    def append(self, records: Sequence[FeedbackRecord]) -> int:
        room = self._most_bytes - self.size
        lines = list(_take_within(room, (record.value + b"\n" for record in records)))
        if not lines:
            return 0
        writer = self._writer or self._new_segment()
        path = self._segments[-1]
        try:
            _write(writer, b"".join(lines))
        except OSError:
            # Discard the partial write: a segment is valid up to its last sync.
            self._end_segment()
            os.truncate(path, self._sizes[path])
            raise
        self._sizes[path] += sum(map(len, lines))
        if self._sizes[path] >= SEGMENT_BYTES:
            self._end_segment()
        return len(lines)

    def peek(self, events: int, size: int) -> tuple[list[FeedbackRecord], int]:
        while not self._lines and self._segments:
            self._read()
        count = _count_within(map(len, self._lines), events, size)
        return [
            record for line in islice(self._lines, count) if (record := parse_line(line))
        ], count

    def acknowledge(self, entries: int) -> None:
        for _ in range(entries):
            self._lines.popleft()
        self._remove_sent_segment()

    def close(self) -> int:
        if self._writer is not None:
            self._end_segment()
        self._lock.close()
        return 0

    def _read(self) -> None:
        """Read more of the first segment. An unterminated last line was never acknowledged, and is
        ignored.
        """
        path = self._segments[0]
        with path.open("rb") as file:
            file.seek(self._read_to)
            self._lines.extend(file.read(self._sizes[path] - self._read_to).split(b"\n")[:-1])
        self._read_to = self._sizes[path]
        self._remove_sent_segment()

    def _remove_sent_segment(self) -> None:
        if not self._lines and self._segments and self._read_to == self._sizes[self._segments[0]]:
            if len(self._segments) == 1 and self._writer is not None:
                self._end_segment()
            self._remove(self._segments[0])
            self._read_to = 0

    def _remove(self, path: Path) -> None:
        path.unlink()
        self._segments.remove(path)
        del self._sizes[path]

    def _new_segment(self) -> FileIO:
        self._number += 1
        path = self._folder / _name(self._number)
        self._writer = os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0
        )
        self._segments.append(path)
        self._sizes[path] = 0
        _sync(self._folder)
        return self._writer

    def _end_segment(self) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        writer.close()


def _count_within(sizes: Iterable[int], events: int, size: int) -> int:
    """Count the entries that fit `events` and `size` bytes; at least one unless empty."""
    count = 0
    for entry_size in sizes:
        size -= entry_size
        if count == events or (count and size < 0):
            break
        count += 1
    return count


def _write(writer: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[writer.write(rest) :]
    os.fsync(writer.fileno())


def _take_within(room: int, lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        room -= len(line)
        if room < 0:
            return
        yield line


def _claim_folder(folder: Path) -> tuple[Path, BinaryIO]:
    """Lock the first of a target's folders that no process owns; return it with its lock."""
    number = 0
    while True:
        own = folder / str(number)
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        if lock := _try_lock(own):
            return own, lock
        number += 1


def _adopt_orphaned_segments(folder: Path, own: Path) -> Iterator[Path]:
    """Move segments of dead processes to this process's folder."""
    last = max((int(path.stem) for path in own.glob("*.jsonl")), default=0)
    for orphaned in sorted(folder.iterdir()):
        if orphaned != own and (lock := _try_lock(orphaned)):
            with lock:
                for path in sorted(orphaned.glob("*.jsonl")):
                    last += 1
                    yield path.rename(own / _name(last))


def _try_lock(folder: Path) -> BinaryIO | None:
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _name(number: int) -> str:
    return f"{number:012d}.jsonl"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
