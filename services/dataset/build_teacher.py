"""Composition of a build's teacher: its server, its key and the cache of its replies."""

import asyncio
from collections.abc import Callable, Sequence

from services.dataset.build_settings import BuildSettings
from services.dataset.building.dataset_building import Teach
from services.dataset.sources.chunking import Chunk
from services.dataset.teacher.chat_api import ChatApi
from services.dataset.teacher.redacted_chunk import redacted_chunk
from services.dataset.teacher.reply_cache import ReplyCache
from services.dataset.teacher.settings import TeacherSettings
from services.dataset.teacher.teaching import TaughtChunk, TeacherReport, teach
from shared.clock import SystemClock
from shared.errors import SettingsError, Unavailable
from shared.redaction.redactor import Redactor


def teacher_of(
    teacher: TeacherSettings,
    settings: BuildSettings,
    redactor: Redactor,
    report_progress: Callable[[str], None],
    *,
    is_plan: bool,
) -> Teach:
    """Return the function that asks the teacher; for a plan, it takes replies from the cache alone.
    The teacher gets the chunks redacted.

    Raises SettingsError for a key that cannot be read.
    """
    key = None if is_plan else _read_key(settings)
    cache = ReplyCache(settings.teacher_cache)

    async def ask_about(found: Sequence[Chunk]) -> tuple[Sequence[TaughtChunk], TeacherReport]:
        # Beyond the budget, no chunk is sent; the report counts them.
        chunks = [redacted_chunk(chunk, redactor) for chunk in found[: teacher.calls]]
        chunks += found[teacher.calls :]
        async with ChatApi(teacher, key) as api:
            ask = None if is_plan else api.ask
            try:
                return await teach(chunks, teacher, cache, ask, SystemClock(), report_progress)
            except Unavailable as error:
                raise Unavailable(
                    f"{error}; its replies until now are in {settings.teacher_cache}: repeat the "
                    "command to continue"
                ) from error

    return lambda chunks: asyncio.run(ask_about(chunks))


def _read_key(settings: BuildSettings) -> str | None:
    if settings.teacher_key_file is None:
        return None
    try:
        key = settings.teacher_key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"RATCHET_TEACHER_KEY_FILE cannot be read: {error}") from error
    if not key.isprintable() or not key:
        raise SettingsError("RATCHET_TEACHER_KEY_FILE: expected a key on one line")
    return key
