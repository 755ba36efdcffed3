"""Budget, order and cache of a teacher's calls."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.dataset.sources.chunking import Chunk, chunks_of
from services.dataset.sources.plain_text import read_plain_text
from services.dataset.teacher.reply_cache import ReplyCache, TeacherReply
from services.dataset.teacher.settings import TeacherSettings
from services.dataset.teacher.teaching import Ask, TaughtChunk, TeacherReport, teach
from shared.clock import ManualClock
from shared.errors import StorageUnavailable, Unavailable
from tests.support.teacher_server import examples

CHUNKS: list[Chunk] = [
    chunk
    for n in range(12)
    for chunk in chunks_of(f"{n}.txt", read_plain_text(f"The gauge number {n} has a long pole."))
]


def settings(**fields: Any) -> TeacherSettings:
    return TeacherSettings(url="http://localhost/v1", model="large", **fields)


def reply_about(request: Mapping[str, Any]) -> TeacherReply:
    """A grounded example and one with a wrong number, about the chunk of a request."""
    words = request["messages"][-1]["content"].split()
    number = words[words.index("number") + 1]
    content = examples(
        (f"Which pole has gauge number {number}?", "A long pole.", "has a long pole"),
        ("How long is it?", "99 m.", "has a long pole"),
    )
    return TeacherReply(text=content, tokens=10)


class Asked:
    """A teacher that answers later chunks sooner, and counts open requests."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls = 0
        self.open = 0
        self.most_open = 0
        self._fails_at = fails_at

    async def __call__(self, request: Mapping[str, Any]) -> TeacherReply:
        self.calls += 1
        number = self.calls
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        for _ in range(20 - number):
            await asyncio.sleep(0)
        self.open -= 1
        if number == self._fails_at:
            raise Unavailable("the teacher does not answer")
        return reply_about(request)


def taught(
    ask: Ask | None, folder: Path, **fields: Any
) -> tuple[list[TaughtChunk], TeacherReport, list[str]]:
    lines: list[str] = []
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    found, report = asyncio.run(
        teach(CHUNKS, settings(**fields), ReplyCache(folder), ask, clock, lines.append)
    )
    return found, report, lines


def test_chunks_are_asked_about_in_parallel_and_kept_in_order(tmp_path: Path) -> None:
    ask = Asked()
    found, report, lines = taught(ask, tmp_path, concurrency=3)
    assert [each.chunk.document for each in found] == [f"{n}.txt" for n in range(12)]
    assert [len(each.examples) for each in found] == [1] * 12
    assert ask.most_open == 3
    assert (report.calls, report.cached, report.tokens, report.written) == (12, 0, 120, 12)
    assert report.ungrounded == {"number": 12}
    assert lines == ["teacher: 10 of 12 calls, 100 tokens, 10 examples, about 0 min left"]


def test_the_budget_of_calls_counts_replies_from_the_cache(tmp_path: Path) -> None:
    first, report, _ = taught(Asked(), tmp_path, calls=5)
    assert (report.calls, report.cached, report.over_budget) == (5, 0, 7)
    again = Asked()
    second, report, _ = taught(again, tmp_path, calls=5)
    assert (report.calls, report.cached, again.calls) == (5, 5, 0)
    assert second == first


def test_tokens_are_spent_in_the_order_of_the_chunks(tmp_path: Path) -> None:
    found, report, _ = taught(Asked(), tmp_path / "a", tokens=35, concurrency=8)
    assert [each.chunk.document for each in found] == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert (report.tokens, report.over_budget) == (40, 8)
    slowly, _, _ = taught(Asked(), tmp_path / "b", tokens=35, concurrency=1)
    assert slowly == found


def test_a_build_that_failed_continues(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        taught(Asked(fails_at=6), tmp_path, concurrency=2)
    again = Asked()
    found, report, _ = taught(again, tmp_path, concurrency=2)
    assert len(found) == 12
    assert report.cached == 12 - again.calls
    assert report.cached >= 5
    assert found == taught(Asked(), tmp_path / "other")[0]


def test_a_plan_takes_replies_from_the_cache_alone(tmp_path: Path) -> None:
    taught(Asked(), tmp_path, calls=4)
    found, report, _ = taught(None, tmp_path, calls=10)
    assert (len(found), report.calls, report.missing, report.over_budget) == (4, 4, 6, 2)


def test_replies_without_json_are_counted(tmp_path: Path) -> None:
    async def refuse(request: Mapping[str, Any]) -> TeacherReply:
        return TeacherReply(text="I would rather not.", tokens=1)

    found, report, _ = taught(refuse, tmp_path)
    assert (report.unusable, report.written) == (12, 0)
    assert all(not each.examples for each in found)


def test_a_damaged_reply_is_asked_for_again(tmp_path: Path) -> None:
    taught(Asked(), tmp_path)
    [damaged, *_] = sorted(tmp_path.rglob("*.json"))
    damaged.write_bytes(damaged.read_bytes()[:5])
    again = Asked()
    taught(again, tmp_path)
    assert again.calls == 1


def test_another_model_or_request_has_another_reply(tmp_path: Path) -> None:
    taught(Asked(), tmp_path)
    again = Asked()
    taught(again, tmp_path, examples_per_chunk=7)
    assert again.calls == 12


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable, match="RATCHET_TEACHER_CACHE names another folder"):
        taught(Asked(), tmp_path / "file")
