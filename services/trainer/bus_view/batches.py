"""Read model of announced batches, from which the batch of a resumed run is read again."""

from shared.errors import Unprocessable
from shared.events import BatchReady
from shared.identity import run_identity
from shared.messaging.bus import Record
from shared.messaging.codec import decode


class AnnouncedBatches:
    """Records of `training.batches` by run; the first one of a run counts."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def apply(self, record: Record) -> None:
        """Add a record. One that cannot be handled is left to the consumer, which sends it to the
        dead letters.
        """
        try:
            batch = decode(record.value, record.headers, BatchReady).event
        except Unprocessable:
            return
        self._records.setdefault(run_identity(batch.batch_id), record)

    def record_of(self, run_id: str) -> Record | None:
        """Return the record of a run's batch, None if the topic does not have it any more."""
        return self._records.get(run_id)
