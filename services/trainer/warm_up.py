"""What a trainer does before its first batch, so that no run waits for what can be known
beforehand.
"""

from services.trainer.bus_view.view import Others
from services.trainer.gate.base_answers import BASE, own_answers, rehearsed
from services.trainer.gate.evaluation_suite import prepare
from services.trainer.run_folder import Runs
from services.trainer.worker.client import ignore
from services.trainer.worker.session import Bench
from shared.config.model_file import Models
from shared.events.hyperparameters import Lane


async def warm_up(
    models: Models, model: str, lane: Lane, bench: Bench, runs: Runs, others: Others
) -> None:
    """Have the child hold a model's base, and know how the base itself answers and scores: every
    run of the lane needs that. Where the base is what is served, or nobody has said yet what is,
    know what the next run will ask of its champion as well.

    Raises RunFailed when the base cannot be loaded.
    """
    max_tokens = models.get(model).lanes[lane].training.max_tokens
    await bench.load()
    references = [*models.retention(model), *models.rehearsal(model, lane)]
    # Those of each set are then known; asked together they take hardly longer than one set.
    await own_answers([prompt.messages for prompt in references], bench, runs, max_tokens, ignore)
    sets = await prepare(models, model, (), (), max_tokens, bench, runs, ignore)
    await rehearsed(models, model, lane, max_tokens, bench, runs, ignore)
    await bench.score(BASE, sets.retention, max_tokens, ignore)
    await others.hear()
    champion = others.champions.champion(model)
    if champion is None or champion.adapter is None:
        await sets.foresee(bench, BASE, ignore)
