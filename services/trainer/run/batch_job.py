"""One announced batch with everything that its handling needs."""

from dataclasses import dataclass, replace
from datetime import datetime

from services.trainer.errors import RunFailed
from services.trainer.machine.bases import LocalBase
from services.trainer.machine.effective_settings import effective_settings
from services.trainer.run.handoff import RunHandoff
from services.trainer.run.outcome import RunFacts
from services.trainer.run.supervision import OwnershipCheck
from services.trainer.run_folder import RunFolder
from services.trainer.training.base_shape import read_shape
from services.trainer.worker.model_session import ModelSession
from shared.config.model_file import ModelFile
from shared.config.training import TrainingConfig
from shared.errors import ContractViolation, Misconfigured
from shared.events import BatchReady
from shared.events.hyperparameters import Configuration
from shared.identity import run_identity
from shared.logs import Log
from shared.observability.tracing import Span


def run_facts(batch: BatchReady, model: ModelFile, base: LocalBase) -> RunFacts:
    """Return the facts of a batch's run. Its configuration is that of its lane, or the default one
    if the model file lacks the lane, with the batch's own hyperparameters; `settled` completes it.
    Raises ContractViolation if one of these is invalid.
    """
    lane = model.lanes.get(batch.lane)
    configuration = lane.training if lane else TrainingConfig(lane=batch.lane)
    if batch.hyperparameters:
        try:
            configuration = configuration.with_values(batch.hyperparameters)
        except Misconfigured as error:
            raise ContractViolation(str(error), "hyperparameters") from error
    return RunFacts(run_identity(batch.batch_id), batch, model, configuration, base)


async def settled(
    facts: RunFacts, folder: RunFolder, session: ModelSession, parent: Configuration | None
) -> RunFacts:
    """Return the facts with the configuration that the run keeps: as an earlier attempt decided
    it, else the effective settings for the base, the device and the champion's adapter, which a run
    with the configuration `parent` made.
    """
    declared = facts.configuration
    if (decided := folder.decided_configuration(declared)) is not None:
        return replace(facts, configuration=decided)
    try:
        shape, device = read_shape(facts.base.folder), await session.describe_device()
    except RunFailed:
        return facts  # the steps of the run meet the same failure, and report it
    has_master = "master" in facts.model.lanes
    effective = effective_settings(declared, shape, device, parent, has_master=has_master)
    return replace(facts, configuration=effective.config)


@dataclass(frozen=True)
class BatchJob:
    """A batch's run with its folder, its hand-off, its log and its span.

    `announced_at` is the time of the batch's record; `is_owner` is false once another trainer owns
    it.
    """

    facts: RunFacts
    folder: RunFolder
    handoff: RunHandoff
    announced_at: datetime | None
    is_owner: OwnershipCheck
    log: Log
    span: Span
