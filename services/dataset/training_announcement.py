"""Batch of a training by hand: written from an imported dataset, then announced."""

from collections.abc import Mapping
from datetime import datetime

from services.dataset import SOURCE
from services.dataset.batch_publisher import batch_ready_event
from services.dataset.imports.training_batch import training_manifest, write_training_manifest
from shared.config.model_file import ModelFile
from shared.events import Artefact, BatchReady
from shared.events.hyperparameters import HyperparameterValue
from shared.logs import Log
from shared.messaging.bus import Producer, publish
from shared.messaging.topics import TRAINING_BATCHES
from shared.service.retry import RetryPolicy
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import read_manifest

ATTEMPTS = 3


def write_training_batch(
    store: ObjectStore,
    model_file: ModelFile,
    dataset: Artefact,
    previous: Artefact | None,
    number: int,
    hyperparameters: Mapping[str, HyperparameterValue] | None,
    occurred_at: datetime,
) -> BatchReady:
    """Write the manifest of the batch that trains a model on a dataset, and return the event that
    announces it. Arguments and errors are those of `training_manifest`. Raises StorageUnavailable.
    """
    manifest = training_manifest(
        read_manifest(store, dataset), model_file, previous, number, hyperparameters
    )
    return batch_ready_event(manifest, write_training_manifest(store, manifest), occurred_at)


async def announce_batch(producer: Producer, event: BatchReady, log: Log) -> None:
    """Announce a batch. A repeated announcement is harmless. Raises BusUnavailable."""
    await RetryPolicy(ATTEMPTS).call(
        lambda: publish(producer, TRAINING_BATCHES, event.model, event, SOURCE), log
    )
