"""Process that carries out one training request: a `BuildOrder` on standard input, `BuildMessage`s
on standard output.

It ends when standard input is closed, so that it does not outlive the builder. A repeated order
writes the same objects.
"""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from services.dataset.builder.build_order import BuildMessage, BuildOrder
from services.dataset.builder.settings import BuilderSettings
from services.dataset.dataset_import import curation_of, redactor_of
from services.dataset.imports.importing import ImportReport, ImportRequest, import_file
from services.dataset.training_announcement import write_training_batch
from shared.config.model_file import ModelFile
from shared.config.models import Models, load_models
from shared.config.settings import read_settings
from shared.errors import CommandRefused, DigestMismatch, RatchetError, Unavailable
from shared.events import Artefact, BatchReady, TrainingRequested, UploadedFile
from shared.failpoints import arm
from shared.identity import digest_of_file
from shared.logs import configure
from shared.storage.object_store import FsspecStore

SHOWN_ERRORS = 5

_FAULT = 70


def carry_out(
    order: BuildOrder, settings: BuilderSettings, report_progress: Callable[[str], None]
) -> BatchReady:
    """Import the file of a request, if it has one, write the batch, and return its announcement.
    Raises RatchetError.
    """
    models = load_models(settings.models)
    request, store = order.request, FsspecStore(settings.object_store)
    model_file = models.require(request.model)
    dataset = (
        request.data
        if request.file is None
        else _import(request, request.file, models, model_file, settings, store, report_progress)
    )
    return write_training_batch(
        store,
        model_file,
        dataset,
        order.previous,
        order.number,
        request.hyperparameters,
        request.occurred_at,
    )


def _import(
    request: TrainingRequested,
    file: UploadedFile,
    models: Models,
    model_file: ModelFile,
    settings: BuilderSettings,
    store: FsspecStore,
    report_progress: Callable[[str], None],
) -> Artefact:
    curation = curation_of(models, model_file, redactor_of(model_file, settings))
    with TemporaryDirectory() as folder:
        path = Path(folder, file.name)
        store.get_file(request.data.uri, path)
        if (digest := digest_of_file(path)) != request.data.digest:
            raise DigestMismatch(file.name, request.data.digest, digest)
        to_import = ImportRequest(path, lane=request.lane, record_format=file.format)
        try:
            report = import_file(to_import, model_file, curation, store, report_progress)
        except CommandRefused as error:
            raise CommandRefused(str(error).replace(f"{folder}/", "")) from error
        if report.manifest is None:
            raise CommandRefused(_refusal(report).replace(f"{folder}/", ""))
        return report.manifest


def _refusal(report: ImportReport) -> str:
    """Return the reason of a refused import with its first errors."""
    errors = [
        f"line {each.line}{f', {each.field}' if each.field else ''}: {each.error}"
        for each in report.first_errors[:SHOWN_ERRORS]
    ]
    return "; ".join([report.refused or "refused", *errors])


def main() -> int:
    """Carry out one order and return the exit status: 0 whatever the result, if it was sent."""
    # Whatever a library prints goes to standard error.
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(message: BuildMessage) -> None:
        messages.write(message.model_dump_json(exclude_none=True).encode() + b"\n")
        messages.flush()

    try:
        settings = read_settings(BuilderSettings)
        _limit_memory(settings.build_memory_mib << 20)
        arm(settings.failpoints, configure("worker", settings.log_level, settings.log_format))
        order = BuildOrder.model_validate_json(sys.stdin.buffer.readline())
        Thread(target=_end_with_builder, daemon=True).start()
        batch = carry_out(order, settings, lambda text: send(BuildMessage(progress=text)))
        send(BuildMessage(batch=batch))
    except Unavailable as error:
        send(BuildMessage(unavailable=str(error)))
    except MemoryError:
        send(BuildMessage(refused=f"needs more memory than {settings.build_memory_mib} MiB"))
    except (RatchetError, OSError) as error:
        send(BuildMessage(refused=str(error)))
    return 0


def _limit_memory(size: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (OSError, ValueError):
        print("builder: this system does not limit the memory of a process", file=sys.stderr)


def _end_with_builder() -> None:
    """End this process when the builder has died: its successor starts another one."""
    sys.stdin.buffer.read()
    os._exit(_FAULT)


if __name__ == "__main__":
    sys.exit(main())
