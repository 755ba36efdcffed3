"""A dataset under construction: its examples in temporary files, its statistics in memory."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

from services.dataset.imports.import_curation import CuratedExample
from services.dataset.snapshot.content import encode_example, encode_report
from services.dataset.snapshot.report import (
    SAMPLES_PER_KIND,
    DatasetReport,
    SampledExample,
    histogram,
    policy_snapshot,
    sample_of,
)
from services.dataset.snapshot.writer import (
    ObjectWriter,
    write_data_file,
    write_object,
    write_reports,
)
from shared.config.model_file import ModelFile
from shared.errors import StorageUnavailable
from shared.events import Artefact, BatchCounts
from shared.events.hyperparameters import Lane
from shared.identity import hash_fraction
from shared.storage.composition import CompositionCounter
from shared.storage.snapshots import (
    EXAMPLE_KINDS,
    IMPORTED_FOLDER,
    MEMBER_KINDS,
    BatchManifest,
    DataFile,
    Example,
    ExampleKind,
    ImportSource,
    dataset_identity,
    manifests_folder,
)

DATA_FILE_BYTES = 16 << 20
"""A data file that has reached this size is followed by another one of the same kind."""


class DatasetDraft:
    """Collects curated examples, then writes the snapshot. A context manager: leaving it deletes
    the temporary files, as does the end of the process, even by kill -9.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: dict[ExampleKind, IO[bytes]] = {
            kind: self._stack.enter_context(TemporaryFile())  # noqa: SIM115 (closed on exit)
            for kind in EXAMPLE_KINDS
        }
        self._compositions = {kind: CompositionCounter() for kind in EXAMPLE_KINDS}
        self._ids: dict[ExampleKind, list[str]] = {kind: [] for kind in EXAMPLE_KINDS}
        self._samples: dict[ExampleKind, list[tuple[float, Example]]] = {
            kind: [] for kind in MEMBER_KINDS
        }
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._rewards: list[float] = []
        self.dropped: Counter[str] = Counter()
        self.redactions: Counter[str] = Counter()

    def __enter__(self) -> "DatasetDraft":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def counts(self) -> BatchCounts:
        """Number of examples of each kind."""
        return BatchCounts(**{kind: len(self._ids[kind]) for kind in EXAMPLE_KINDS})

    @property
    def members(self) -> int:
        """Number of examples, each counted once."""
        return sum(len(self._ids[kind]) for kind in MEMBER_KINDS)

    def add(self, curated: CuratedExample) -> None:
        """Add a curated example, or count a dropped one."""
        self.redactions.update(curated.redactions)
        example = curated.example
        if example is None:
            self.dropped[curated.reason] += 1
            return
        kind: ExampleKind
        match curated.decision:
            case "held_out":
                kind = "held_out"
            case "negative":
                kind = "negative"
            case _:
                kind = "training"
        self._reasons[kind, curated.reason] += 1
        self._rewards.append(example.reward)
        self._draw_sample(kind, example)
        if kind == "training" and example.rejected is not None:
            self._append("preference", example)
            example = example.model_copy(update={"rejected": None})
        self._append(kind, example)

    def write(
        self, store: ObjectWriter, model_file: ModelFile, lane: Lane, source: ImportSource
    ) -> tuple[str, Artefact]:
        """Write the snapshot, its manifest last; return the dataset's ID and the manifest.

        The same examples, model file, lane and source always have the same objects. Raises
        StorageUnavailable.
        """
        folder = f"snapshots/{model_file.model}/{IMPORTED_FOLDER}"
        files = tuple(
            file for kind in EXAMPLE_KINDS for file in self._write_data(store, folder, kind)
        )
        made_of = {kind: self._compositions[kind].composition for kind in EXAMPLE_KINDS}
        training = made_of["training"].reward
        assert training is not None, "a dataset has training examples"
        manifest = BatchManifest(
            batch_id="unnamed",
            model=model_file.model,
            model_digest=model_file.digest,
            shard=0,
            number=0,
            lane=lane,
            files=files,
            counts=self.counts,
            dropped=dict(sorted(self.dropped.items())),
            offsets=(),
            feedback_ids=tuple(name for kind in MEMBER_KINDS for name in self._ids[kind]),
            mean_reward=training.mean,
            previous=None,
            reasons=self._reasons_by_kind(),
            made_of=made_of,
            policy=policy_snapshot(model_file),
            imported=source,
        )
        dataset_id = dataset_identity(manifest)
        report = encode_report(self._report(manifest, dataset_id))
        reports = write_reports(store, folder, report)
        manifest = manifest.model_copy(update={"batch_id": dataset_id, **reports})
        place = f"{manifests_folder(model_file.model)}/{dataset_id}"
        return dataset_id, write_object(store, place, "json", manifest.encode())

    def _append(self, kind: ExampleKind, example: Example) -> None:
        try:
            self._files[kind].write(encode_example(example) + b"\n")
        except OSError as error:
            raise StorageUnavailable(
                f"no room for temporary files ({error.strerror}); TMPDIR names their folder"
            ) from error
        self._compositions[kind].add(example)
        self._ids[kind].append(example.feedback_id)

    def _draw_sample(self, kind: ExampleKind, example: Example) -> None:
        """Keep the examples whose IDs hash lowest."""
        samples = self._samples[kind]
        samples.append((hash_fraction("sample", example.feedback_id), example))
        samples.sort(key=lambda ranked: ranked[0])
        del samples[SAMPLES_PER_KIND:]

    def _write_data(
        self, store: ObjectWriter, folder: str, kind: ExampleKind
    ) -> Iterator[DataFile]:
        """Write the examples of a kind to data files of bounded size, at least one."""
        spilled = self._files[kind]
        spilled.seek(0)
        lines: list[bytes] = []
        size = written = 0
        for line in spilled:
            lines.append(line.removesuffix(b"\n"))
            size += len(line)
            if size >= DATA_FILE_BYTES:
                yield write_data_file(store, folder, kind, lines)
                written += 1
                lines, size = [], 0
        if lines or not written:
            yield write_data_file(store, folder, kind, lines)

    def _reasons_by_kind(self) -> dict[str, dict[str, int]]:
        reasons: dict[str, dict[str, int]] = {}
        for (kind, reason), count in sorted(self._reasons.items()):
            reasons.setdefault(kind, {})[reason] = count
        return reasons

    def _report(self, manifest: BatchManifest, dataset_id: str) -> DatasetReport:
        assert manifest.policy is not None
        return DatasetReport(
            model=manifest.model,
            model_digest=manifest.model_digest,
            batch_id=dataset_id,
            shard=manifest.shard,
            number=manifest.number,
            lane=manifest.lane,
            closed_at=None,
            counts=manifest.counts,
            reasons={kind: dict(reasons) for kind, reasons in manifest.reasons.items()},
            dropped=manifest.dropped,
            held_back={},
            made_of=dict(manifest.made_of),
            rewards=histogram(self._rewards),
            offsets=(),
            policy=manifest.policy,
            samples=self._sampled(),
            imported=manifest.imported,
        )

    def _sampled(self) -> tuple[SampledExample, ...]:
        return tuple(
            sample_of(kind, example) for kind in MEMBER_KINDS for _, example in self._samples[kind]
        )
