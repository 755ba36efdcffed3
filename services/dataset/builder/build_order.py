"""Messages between the builder and its worker process: JSON, one message per line."""

from shared.events import Artefact, BatchReady, FrozenModel, TrainingRequested

MAX_LINE_BYTES = 4 << 20


class BuildOrder(FrozenModel):
    """A request to carry out, with the newest batch of the model's feedback and the number of the
    next one.
    """

    request: TrainingRequested
    previous: Artefact | None
    number: int


class BuildMessage(FrozenModel):
    """A message of the worker. The last one has a batch, or the reason of a refusal, or the reason
    to try again later.
    """

    progress: str | None = None
    batch: BatchReady | None = None
    refused: str | None = None
    unavailable: str | None = None
