"""Ends trials whose time has run out, on whichever replica comes first."""

import asyncio

from services.registry.app import Registry
from shared.errors import Unavailable
from shared.logs import Log

EVERY_SECONDS = 5.0


async def watch_trials(registry: Registry, log: Log, every: float = EVERY_SECONDS) -> None:
    """Until cancelled. Feedback ends a trial by itself; what it does not say is that time goes by."""
    while True:
        for model in registry.models.files:
            try:
                await registry.look_at_trial(model)
            except Unavailable as error:
                log.warning("trials wait", model=model, reason=str(error))
        await asyncio.sleep(every)
