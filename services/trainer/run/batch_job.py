"""One announced batch with everything that its handling needs."""

from dataclasses import dataclass
from datetime import datetime

from services.trainer.run.supervision import OwnershipCheck
from shared.config.model_file import ModelFile
from shared.config.training import TrainingConfig
from shared.events import BatchReady
from shared.identity import identity
from shared.logs import Log
from shared.observability.tracing import Span


def run_id_of(batch: BatchReady) -> str:
    """Return the id of a batch's run: the same for every trainer and every attempt."""
    return identity("run", batch.batch_id)


@dataclass(frozen=True)
class BatchJob:
    """A batch, its model, and the log and span of its run.

    `announced_at` is the time of its record; `is_owner` is false once another trainer owns it.
    """

    batch: BatchReady
    model: ModelFile
    announced_at: datetime | None
    is_owner: OwnershipCheck
    log: Log
    span: Span

    @property
    def run_id(self) -> str:
        return run_id_of(self.batch)

    @property
    def configuration(self) -> TrainingConfig:
        """Configuration of the batch's lane; the default one if the model file lacks the lane."""
        lane = self.model.lanes.get(self.batch.lane)
        return lane.training if lane else TrainingConfig(lane=self.batch.lane)
