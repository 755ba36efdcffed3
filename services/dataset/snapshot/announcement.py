"""The event that announces a snapshot as a batch."""

from datetime import datetime

from shared.events import Artefact, BatchReady
from shared.storage.snapshots import BatchManifest


def batch_ready_event(
    manifest: BatchManifest, artefact: Artefact, occurred_at: datetime
) -> BatchReady:
    """The event that announces a batch: a function of its manifest, which `artefact` names, and its
    time, so that a repeated announcement is the same.
    """
    return BatchReady(
        event_id=manifest.batch_id,
        occurred_at=occurred_at,
        model=manifest.model,
        model_digest=manifest.model_digest,
        batch_id=manifest.batch_id,
        shard=manifest.shard,
        number=manifest.number,
        lane=manifest.lane,
        manifest=artefact,
        counts=manifest.counts,
        offsets=manifest.offsets,
    )
