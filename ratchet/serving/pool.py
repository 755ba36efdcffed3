"""The loaded versions: engines are started on use, unloaded beyond a limit, and restarted if they
die.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from ratchet.serving.catalogue import tags_to_unload
from ratchet.serving.engine import Engine, EngineOptions
from shared.errors import InvalidArtefact
from shared.logs import Log


class TagLookup(Protocol):
    """The part of the catalogue that the pool needs."""

    def path_of(self, tag: str) -> str: ...

    def aliased_tags(self) -> Collection[str]: ...


class EnginePool:
    """Keeps at most `limit` engines and unloads the least recently used first, but never a busy one
    or one with an alias.
    """

    def __init__(
        self, tags: TagLookup, options: EngineOptions, limit: int, logs: Path, log: Log
    ) -> None:
        self._tags = tags
        self._options = options
        self._limit = limit
        self._logs = logs
        self._log = log
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._starting: dict[str, asyncio.Lock] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def loaded(self) -> tuple[str, ...]:
        """Loaded tags, least recently used first."""
        return tuple(self._engines)

    def process_id_of(self, tag: str) -> int | None:
        """Return the process id of a tag's engine, or None if it is not loaded."""
        engine = self._engines.get(tag)
        return engine.process_id if engine else None

    @asynccontextmanager
    async def lease(self, tag: str) -> AsyncIterator[str]:
        """Yield the address of a tag's engine, which is started if needed and stays loaded
        meanwhile.

        Raises InvalidArtefact if the file cannot be loaded.
        """
        self._busy[tag] += 1
        try:
            yield (await self._engine(tag)).address
        finally:
            self._busy[tag] -= 1
            self.unload_excess()

    async def load(self, tag: str) -> None:
        """Load a tag. Raises InvalidArtefact."""
        async with self.lease(tag):
            pass

    def unload(self, tag: str) -> None:
        """Unload a tag, even if it is in use."""
        engine = self._engines.pop(tag, None)
        if engine is not None:
            engine.kill()

    def discard_unresponsive(self, tag: str, address: str) -> None:
        """Unload the engine at `address`, which does not answer; the next use starts a new one."""
        engine = self._engines.get(tag)
        if engine is not None and engine.address == address:
            self._log.warning("engine does not answer", tag=tag)
            self.unload(tag)

    def unload_excess(self) -> None:
        """Unload engines beyond the limit."""
        busy = {tag for tag, count in self._busy.items() if count}
        for tag in tags_to_unload(self.loaded, busy, self._tags.aliased_tags(), self._limit):
            self._log.info("unloaded", tag=tag)
            self.unload(tag)

    async def close(self) -> None:
        self._closing = True
        for tag in self.loaded:
            self.unload(tag)
        await asyncio.gather(*self._watchers)

    async def _engine(self, tag: str) -> Engine:
        async with self._starting.setdefault(tag, asyncio.Lock()):
            engine = self._engines.get(tag)
            if engine is None:
                log = self._logs / f"{tag.replace(':', '_')}.log"
                engine = await Engine.start(tag, self._tags.path_of(tag), self._options, log)
                self._engines[tag] = engine
                watcher = asyncio.create_task(self._watch(tag, engine))
                self._watchers.add(watcher)
                watcher.add_done_callback(self._watchers.discard)
            self._engines.move_to_end(tag)
            return engine

    async def _watch(self, tag: str, engine: Engine) -> None:
        """Handle the death of an engine that was not unloaded: restart it now if its tag has an
        alias, otherwise at the next use.
        """
        status = await engine.wait()
        if self._closing or self._engines.get(tag) is not engine:
            return
        del self._engines[tag]
        self._log.warning("engine died", tag=tag, status=status)
        if tag in self._tags.aliased_tags():
            try:
                await self.load(tag)
            except InvalidArtefact as error:
                self._log.error(
                    "engine could not be restarted; the next request retries",
                    tag=tag,
                    reason=str(error),
                )
