"""Preparation before the first batch: load the base and cache its answers and scores."""

from services.trainer.bus_view.view import BusView
from services.trainer.gate.base_answers import BASE, base_answers
from services.trainer.gate.evaluation_suite import build_suite
from services.trainer.protocol import EvaluationProgress, Stepped
from services.trainer.run_folder import WorkFolder
from services.trainer.worker.model_session import ModelSession
from shared.clock import Clock
from shared.config.models import Models
from shared.events.hyperparameters import Lane
from shared.logs import Log
from shared.service.runtime import Runtime

LOG_EVERY_SECONDS = 5.0


class CountLog:
    """Logs how many items of a request are done: every few seconds, and at the end."""

    def __init__(self, items: str, log: Log, clock: Clock) -> None:
        self._items = items
        self._log = log
        self._clock = clock
        self._logged_at = clock.monotonic()

    async def __call__(self, reply: Stepped | EvaluationProgress) -> None:
        assert isinstance(reply, EvaluationProgress), "a warm-up does not train"
        now = self._clock.monotonic()
        if reply.done == reply.total or now - self._logged_at >= LOG_EVERY_SECONDS:
            self._logged_at = now
            self._log.info(f"warming up: {self._items} {reply.done} of {reply.total}")


async def warm_up(
    models: Models,
    model: str,
    lane: Lane,
    session: ModelSession,
    work: WorkFolder,
    view: BusView,
    runtime: Runtime,
) -> None:
    """Load a model's base, and cache the base's answers and scores that every run of the lane
    needs. If the base is the champion, or no champion is known yet, also cache the champion's part
    of the next run's evaluation. The log counts: it may take minutes on a slow machine.

    Raises RunFailed if the base cannot be loaded.
    """
    max_tokens = models.get(model).lanes[lane].training.max_tokens
    log = runtime.log.bind(model=model)

    def counted(items: str) -> CountLog:
        return CountLog(items, log, runtime.clock)

    log.info("warming up: loading the base", base=session.base.name)
    await session.load()
    rehearsal = [prompt.messages for prompt in models.rehearsal(model, lane)]
    # This fills the cache for both sets below: one request takes hardly longer than one set.
    await base_answers(
        [*(prompt.messages for prompt in models.regression_set(model)), *rehearsal],
        session,
        work,
        max_tokens,
        counted("regression and rehearsal answers"),
    )
    regression_answers = counted("regression answers")
    suite = await build_suite(models, model, (), (), max_tokens, session, work, regression_answers)
    await base_answers(rehearsal, session, work, max_tokens, counted("rehearsal answers"))
    await session.score(BASE, suite.regression, max_tokens, counted("regression scores"))
    await view.refresh()
    champion = view.champion(model)
    if champion is None or champion.adapter is None:
        await suite.prefetch(session, BASE, counted("golden scores and regression prompts"))
