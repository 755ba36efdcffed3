"""What a trainer does before its first batch, so that no run waits for what can be known
beforehand.
"""

from services.trainer.bus_view.view import BusView
from services.trainer.gate.base_answers import BASE, base_answers, rehearsal_samples
from services.trainer.gate.evaluation_suite import build_suite
from services.trainer.run_folder import RunFolders
from services.trainer.worker.client import ignore_progress
from services.trainer.worker.model_session import ModelSession
from shared.config.model_file import Models
from shared.events.hyperparameters import Lane


async def warm_up(
    models: Models, model: str, lane: Lane, bench: ModelSession, runs: RunFolders, others: BusView
) -> None:
    """Have the child hold a model's base, and know how the base itself answers and scores: every
    run of the lane needs that. Where the base is what is served, or nobody has said yet what is,
    know what the next run will ask of its champion as well.

    Raises RunFailed when the base cannot be loaded.
    """
    max_tokens = models.get(model).lanes[lane].training.max_tokens
    await bench.load()
    references = [*models.regression_set(model), *models.rehearsal(model, lane)]
    # Those of each set are then known; asked together they take hardly longer than one set.
    await base_answers(
        [prompt.messages for prompt in references], bench, runs, max_tokens, ignore_progress
    )
    sets = await build_suite(models, model, (), (), max_tokens, bench, runs, ignore_progress)
    await rehearsal_samples(models, model, lane, max_tokens, bench, runs, ignore_progress)
    await bench.score(BASE, sets.regression, max_tokens, ignore_progress)
    await others.refresh()
    champion = others.champions.champion(model)
    if champion is None or champion.adapter is None:
        await sets.prefetch(bench, BASE, ignore_progress)
