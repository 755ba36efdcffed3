"""The versions in memory: started when they are needed, kept while they are wanted, started again
when one dies.
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
    """What the pool asks of the catalogue: the file of a tag, and which tags an alias names."""

    def path_of(self, tag: str) -> str: ...

    def aliased_tags(self) -> Collection[str]: ...


class EnginePool:
    """At most `limit` engines, the least recently used unloaded first; never one that an alias
    names or that is answering.
    """

    def __init__(
        self, wanted: TagLookup, options: EngineOptions, limit: int, logs: Path, log: Log
    ) -> None:
        self._wanted = wanted
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
        """Tags in memory, least recently used first."""
        return tuple(self._engines)

    def process_id_of(self, tag: str) -> int | None:
        """The process id of a loaded tag's engine."""
        engine = self._engines.get(tag)
        return engine.process_id if engine else None

    @asynccontextmanager
    async def lease(self, tag: str) -> AsyncIterator[str]:
        """The address of a tag's engine, which is started if need be and stays while the body runs.

        Raises Unusable when the file cannot be loaded.
        """
        self._busy[tag] += 1
        try:
            yield (await self._engine(tag)).address
        finally:
            self._busy[tag] -= 1
            self.unload_excess()

    async def load(self, tag: str) -> None:
        """Have a tag in memory. Raises Unusable."""
        async with self.lease(tag):
            pass

    def unload(self, tag: str) -> None:
        """Let a tag go, whoever uses it."""
        engine = self._engines.pop(tag, None)
        if engine is not None:
            engine.kill()

    def discard_unresponsive(self, tag: str, address: str) -> None:
        """The engine at `address` does not answer: let it go, so that the next use starts another."""
        engine = self._engines.get(tag)
        if engine is not None and engine.address == address:
            self._log.warning("an engine does not answer", tag=tag)
            self.unload(tag)

    def unload_excess(self) -> None:
        """Let go what is over the limit."""
        busy = {tag for tag, count in self._busy.items() if count}
        for tag in tags_to_unload(self.loaded, busy, self._wanted.aliased_tags(), self._limit):
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
                engine = await Engine.start(tag, self._wanted.path_of(tag), self._options, log)
                self._engines[tag] = engine
                watcher = asyncio.create_task(self._watch(tag, engine))
                self._watchers.add(watcher)
                watcher.add_done_callback(self._watchers.discard)
            self._engines.move_to_end(tag)
            return engine

    async def _watch(self, tag: str, engine: Engine) -> None:
        """When an engine ends that nobody unloaded, an aliased one is started again at once, others
        when they are next asked for.
        """
        status = await engine.wait()
        if self._closing or self._engines.get(tag) is not engine:
            return
        del self._engines[tag]
        self._log.warning("an engine died", tag=tag, status=status)
        if tag in self._wanted.aliased_tags():
            try:
                await self.load(tag)
            except InvalidArtefact as error:
                self._log.error(
                    "an engine could not be started again; the next request tries once more",
                    tag=tag,
                    reason=str(error),
                )
