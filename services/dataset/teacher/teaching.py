"""Examples about chunks by a teacher, within a budget."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.dataset.sources.chunking import Chunk
from services.dataset.teacher.grounding import fault_of
from services.dataset.teacher.prompting import messages_for
from services.dataset.teacher.reply import TaughtExample, parse_reply
from services.dataset.teacher.reply_cache import TeacherReply
from services.dataset.teacher.settings import TeacherSettings
from shared.clock import Clock

_PROGRESS_CALLS = 10


class Replies(Protocol):
    """Stored replies by request."""

    def get(self, request: Mapping[str, Any]) -> TeacherReply | None: ...

    def put(self, request: Mapping[str, Any], reply: TeacherReply) -> None: ...


Ask = Callable[[Mapping[str, Any]], Awaitable[TeacherReply]]


@dataclass
class TeacherReport:
    """Statistics of a build. `calls` counts the replies that are used, `cached` those of them from
    the cache, `missing` the chunks without a reply in a plan, and `over_budget` the chunks that the
    budget left out. `unusable` counts replies without JSON of the requested form, `ungrounded` the
    dropped examples by reason.
    """

    calls: int = 0
    cached: int = 0
    missing: int = 0
    over_budget: int = 0
    tokens: int = 0
    unusable: int = 0
    written: int = 0
    ungrounded: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class TaughtChunk:
    """A chunk with its grounded examples."""

    chunk: Chunk
    examples: Sequence[TaughtExample]


async def teach(
    chunks: Sequence[Chunk],
    settings: TeacherSettings,
    cache: Replies,
    ask: Ask | None,
    clock: Clock,
    report_progress: Callable[[str], None],
) -> tuple[list[TaughtChunk], TeacherReport]:
    """Ask for examples about chunks, in their order, and keep the grounded ones.

    The budget of tokens is spent in the order of the chunks, whatever order replies arrive in: the
    same replies always give the same examples. `ask` None takes replies from the cache alone.
    Raises what `ask` raises; replies until then are in the cache.
    """
    report = TeacherReport(over_budget=max(len(chunks) - settings.calls, 0))
    chunks = chunks[: settings.calls]
    taught: list[TaughtChunk] = []
    start = clock.monotonic()
    async with aclosing(_in_order(chunks, settings, cache, ask)) as replies:
        async for place, reply, is_cached in replies:
            if reply is None:
                report.missing += 1
                continue
            report.calls += 1
            report.cached += is_cached
            report.tokens += reply.tokens
            taught.append(TaughtChunk(chunks[place], _grounded(reply, chunks[place], report)))
            left = len(chunks) - place - 1
            if report.tokens >= settings.tokens:
                report.over_budget += left
                break
            asked = report.calls - report.cached
            if asked and asked % _PROGRESS_CALLS == 0:
                minutes = (clock.monotonic() - start) / asked * left / 60
                report_progress(
                    f"teacher: {report.calls:,} of {len(chunks):,} calls, {report.tokens:,} "
                    f"tokens, {report.written:,} examples, about {minutes:.0f} min left"
                )
    return taught, report


async def _in_order(
    chunks: Sequence[Chunk], settings: TeacherSettings, cache: Replies, ask: Ask | None
) -> AsyncGenerator[tuple[int, TeacherReply | None, bool], None]:
    """Yield place, reply, and whether it was cached, in the order of the chunks; at most
    `concurrency` requests are open.
    """

    async def reply_to(chunk: Chunk) -> tuple[TeacherReply | None, bool]:
        request = _request(chunk, settings)
        if (known := cache.get(request)) is not None:
            return known, True
        if ask is None:
            return None, False
        reply = await ask(request)
        cache.put(request, reply)
        return reply, False

    tasks: dict[int, asyncio.Task[tuple[TeacherReply | None, bool]]] = {}
    try:
        for place in range(len(chunks)):
            for later in range(place, min(place + settings.concurrency, len(chunks))):
                if later not in tasks:
                    tasks[later] = asyncio.create_task(reply_to(chunks[later]))
            reply, is_cached = await tasks[place]
            yield place, reply, is_cached
            del tasks[place]
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


def _request(chunk: Chunk, settings: TeacherSettings) -> dict[str, Any]:
    return {
        "model": settings.model,
        "messages": list(messages_for(chunk, settings.examples_per_chunk)),
        "temperature": 0.0,
        "max_tokens": settings.max_reply_tokens,
    }


def _grounded(reply: TeacherReply, chunk: Chunk, report: TeacherReport) -> list[TaughtExample]:
    examples = parse_reply(reply.text)
    if examples is None:
        report.unusable += 1
        return []
    kept: list[TaughtExample] = []
    for example in examples:
        if (fault := fault_of(example, chunk)) is not None:
            report.ungrounded[fault] += 1
        else:
            kept.append(example)
    report.written += len(kept)
    return kept
