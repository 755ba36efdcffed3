"""Look-up of announced batches by ID, prefix of an ID, or number."""

from collections.abc import Iterable

from shared.errors import BusUnavailable, CommandRefused
from shared.events import BatchReady
from shared.kafka import announced_batches
from shared.kafka.security import PLAINTEXT, Security


async def read_announced_batches(
    bootstrap_servers: str, security: Security = PLAINTEXT
) -> list[BatchReady]:
    """Read all announced batches, in the order of the log. Raises BusUnavailable."""
    try:
        return await announced_batches.read_announced_batches(bootstrap_servers, security)
    except BusUnavailable as error:
        raise BusUnavailable(
            f"batches could not be looked up: {error} --manifest URI --digest D names a "
            "batch without Kafka"
        ) from error


def find_batch(batches: Iterable[BatchReady], reference: str) -> BatchReady:
    """Return the batch with this ID, prefix of an ID, `model/number` or `model#shard/number`.

    Raises CommandRefused if no batch or several match.
    """
    candidates = [
        batch
        for batch in batches
        if reference in batch_references(batch) or batch.batch_id.startswith(reference.lower())
    ]
    match candidates:
        case [batch]:
            return batch
        case []:
            raise CommandRefused(
                f"no batch matches {reference!r}; `ratchet dataset list MODEL` lists all batches"
            )
        case _:
            several = ", ".join(
                f"{batch_references(batch)[-1]} ({batch.batch_id})" for batch in candidates[:5]
            )
            more = f" and {len(candidates) - 5} more" if len(candidates) > 5 else ""
            raise CommandRefused(
                f"{len(candidates)} batches match {reference!r}: {several}{more}; give "
                "a longer prefix of the ID"
            )


def is_imported_reference(reference: str) -> bool:
    """True for `model@ID`, the name of an imported dataset."""
    return "@" in reference


def batch_references(batch: BatchReady) -> tuple[str, str]:
    """References to a batch other than its ID. A dataset that was trained on has a number of its
    own kind, which names no batch.
    """
    if batch.lane == "master":
        return batch.batch_id, batch.batch_id[:12]
    return f"{batch.model}/{batch.number}", f"{batch.model}#{batch.shard}/{batch.number}"
