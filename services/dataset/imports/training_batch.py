"""The batch that trains a model on an imported dataset."""

from collections.abc import Mapping

from services.dataset.snapshot.report import policy_snapshot
from services.dataset.snapshot.writer import ObjectWriter, write_object
from shared.config.model_file import ModelFile
from shared.errors import CommandRefused, Misconfigured
from shared.events import Artefact
from shared.events.hyperparameters import HyperparameterValue
from shared.storage.snapshots import (
    IMPORTED_FOLDER,
    BatchManifest,
    dataset_identity,
)


def training_manifest(
    dataset: BatchManifest,
    model_file: ModelFile,
    previous: Artefact | None,
    number: int,
    hyperparameters: Mapping[str, HyperparameterValue] | None = None,
) -> BatchManifest:
    """Return the manifest of the batch: that of the dataset, with the newest batch of feedback
    before it, so that a run replays feedback and is judged on held-out feedback as well.

    `hyperparameters` replace those of the lane for this run. The same dataset, model file, batch
    before it and hyperparameters are the same batch. `number` is that of the next batch of
    feedback. Raises CommandRefused for a dataset that cannot be trained under this model file,
    Misconfigured if that lacks the lane or a hyperparameter is outside its range.
    """
    if dataset.imported is None or dataset.model != model_file.model:
        raise CommandRefused(f"{dataset.batch_id} is no imported dataset of {model_file.model}")
    if dataset.lane not in model_file.lanes:
        raise Misconfigured(
            f"the file of {model_file.model} declares no lane {dataset.lane!r}; add it under lanes"
        )
    if dataset.policy != policy_snapshot(model_file):
        raise CommandRefused(
            f"curation or reward in the file of {model_file.model} were changed since the import; "
            "import the file again"
        )
    if hyperparameters:
        model_file.lanes[dataset.lane].training.with_values(hyperparameters)
    manifest = dataset.model_copy(
        update={
            "model_digest": model_file.digest,
            "previous": previous,
            "number": number,
            "hyperparameters": dict(sorted(hyperparameters.items())) if hyperparameters else None,
        }
    )
    return manifest.model_copy(update={"batch_id": dataset_identity(manifest)})


def write_training_manifest(store: ObjectWriter, manifest: BatchManifest) -> Artefact:
    """Write the manifest of a batch; its data files exist. Raises StorageUnavailable."""
    folder = f"snapshots/{manifest.model}/{IMPORTED_FOLDER}/batches"
    return write_object(store, folder, "json", manifest.encode())
