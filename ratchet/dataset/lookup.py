"""Look-up of announced batches by ID, prefix of an ID, or number, and of imported datasets."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePosixPath

from shared.errors import BusUnavailable, CommandRefused, Unprocessable
from shared.events import Artefact, BatchReady
from shared.kafka.security import PLAINTEXT, Security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_BATCHES
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import manifests_folder

_MANIFEST = re.compile(r"[0-9a-f]{64}\.json")


async def read_announced_batches(
    bootstrap_servers: str, security: Security = PLAINTEXT
) -> list[BatchReady]:
    """Read all announced batches, in the order of the log. Raises BusUnavailable."""
    reader = KafkaTopicReader(bootstrap_servers, [TRAINING_BATCHES], security)
    try:
        await reader.start()
        return batches_from_records(await reader.read_new())
    except BusUnavailable as error:
        raise BusUnavailable(
            f"batches could not be looked up: {error} --manifest URI --digest D names a "
            "batch without Kafka"
        ) from error
    finally:
        await reader.stop()


def batches_from_records(records: Iterable[Record]) -> list[BatchReady]:
    """Return the batches that the records announce, without repetitions: a batch announced again
    after a crash is the same batch.
    """
    batches: dict[str, BatchReady] = {}
    for record in records:
        # The trainer sends invalid records to the dead-letter topic.
        with suppress(Unprocessable):
            event = decode(record.value, record.headers, BatchReady).event
            batches.setdefault(event.batch_id, event)
    return list(batches.values())


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


def imported_datasets(store: ObjectStore, model: str) -> list[Artefact]:
    """Return the manifests of a model's imported datasets, in the order of their IDs. Raises
    StorageUnavailable.
    """
    return [
        Artefact(uri=key, digest=f"sha256:{PurePosixPath(key).stem}")
        for key in store.list_keys(manifests_folder(model))
        if _MANIFEST.fullmatch(PurePosixPath(key).name)
    ]


def find_imported(store: ObjectStore, reference: str) -> Artefact:
    """Return the manifest of the imported dataset `model@ID` or `model@PREFIX`.

    Raises CommandRefused if none or several match.
    """
    model, _, prefix = reference.partition("@")
    matches = [
        artefact
        for artefact in imported_datasets(store, model)
        if PurePosixPath(artefact.uri).parent.name.startswith(prefix.lower())
    ]
    if len(matches) == 1:
        return matches[0]
    found = "no" if not matches else str(len(matches))
    raise CommandRefused(
        f"{found} imported datasets match {reference!r}; `ratchet dataset list {model} --imported` "
        "lists them"
    )


def batch_references(batch: BatchReady) -> tuple[str, str]:
    """References to a batch other than its ID. A dataset that was trained on has a number of its
    own kind, which names no batch.
    """
    if batch.lane == "master":
        return batch.batch_id, batch.batch_id[:12]
    return f"{batch.model}/{batch.number}", f"{batch.model}#{batch.shard}/{batch.number}"
