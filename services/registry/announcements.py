"""What the dataset service announces: kept, so that a version can say what it was made of."""

from sqlalchemy.orm import Session

from services.registry.store.tables import Batch
from shared.events import BatchReady, Event


def batch_announced(session: Session, event: BatchReady) -> list[Event]:
    """Keep where a batch lies. One that is announced again is the same batch."""
    if session.get(Batch, event.batch_id) is None:
        session.add(
            Batch(
                batch_id=event.batch_id,
                model=event.model,
                shard=event.shard,
                number=event.number,
                lane=event.lane,
                manifest_uri=event.manifest.uri,
                manifest_digest=event.manifest.digest,
                counts=event.counts.model_dump(),
                offsets=[span.model_dump() for span in event.offsets],
                closed_at=event.occurred_at,
            )
        )
    return []
