"""Preparation before the first batch: load the base and cache its answers and scores."""

from services.trainer.bus_view.view import BusView
from services.trainer.gate.base_answers import BASE, base_answers, rehearsal_samples
from services.trainer.gate.evaluation_suite import build_suite
from services.trainer.run_folder import WorkFolder
from services.trainer.worker.client import ignore_progress
from services.trainer.worker.model_session import ModelSession
from shared.config.models import Models
from shared.events.hyperparameters import Lane


async def warm_up(
    models: Models,
    model: str,
    lane: Lane,
    session: ModelSession,
    work: WorkFolder,
    view: BusView,
) -> None:
    """Load a model's base, and cache the base's answers and scores that every run of the lane
    needs. If the base is the champion, or no champion is known yet, also cache the champion's part
    of the next run's evaluation.

    Raises RunFailed if the base cannot be loaded.
    """
    max_tokens = models.get(model).lanes[lane].training.max_tokens
    await session.load()
    prompts = [*models.regression_set(model), *models.rehearsal(model, lane)]
    # This fills the cache for both sets below: one request takes hardly longer than one set.
    await base_answers(
        [prompt.messages for prompt in prompts], session, work, max_tokens, ignore_progress
    )
    suite = await build_suite(models, model, (), (), max_tokens, session, work, ignore_progress)
    await rehearsal_samples(models, model, lane, max_tokens, session, work, ignore_progress)
    await session.score(BASE, suite.regression, max_tokens, ignore_progress)
    await view.refresh()
    champion = view.champion(model)
    if champion is None or champion.adapter is None:
        await suite.prefetch(session, BASE, ignore_progress)
