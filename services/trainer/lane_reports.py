"""Effective settings and estimates of every lane on this machine:
`python -m services.trainer.lane_reports` prints them as JSON. Starts without torch, and downloads
nothing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from services.trainer.errors import RunFailed
from services.trainer.machine.bases import base_folder
from services.trainer.machine.effective_settings import Device, effective_settings
from services.trainer.machine.memory import (
    UNLIMITED,
    BatchTokens,
    ModelShape,
    estimate_needs,
    format_bytes,
)
from services.trainer.machine.run_estimate import RunDuration, RunSize, estimate_time
from services.trainer.run_folder import WorkFolder
from services.trainer.settings import TrainerSettings
from services.trainer.training.base_shape import read_shape
from shared.config.model_file import ModelFile
from shared.config.models import Models, built_in_rehearsal, load_models
from shared.config.settings import read_settings
from shared.config.training import TrainingConfig
from shared.errors import SettingsError
from shared.events import CheckpointSaved, Message
from shared.events.hyperparameters import Configuration, Lane
from shared.lane_report import EffectiveSetting, Estimate, LaneReport
from shared.service.exit_status import exit_status
from shared.version import install_command

REPORTS = TypeAdapter(list[LaneReport])

CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS = 8
"""Tokens that a chat template adds to each turn, about."""
UNKNOWN_EXAMPLE_TOKENS = 100
REHEARSED_TOKENS = 70
"""Tokens of a rehearsed example, about: a short question, and an answer of at most 48."""
MASTER_EXAMPLES = 1000
"""A dataset has no batch size; estimates of the master lane are for this many new examples."""
MAX_EARLIER_RUNS = 5


def lane_reports(settings: TrainerSettings) -> list[LaneReport]:
    """Report on every lane of every model file. Raises Misconfigured for an invalid one."""
    models, work = load_models(settings.models), WorkFolder(settings.work)
    device, rate = _device(settings)
    return [
        _report(models, file, lane, settings.bases, work, device, rate)
        for file in models.files.values()
        for lane in file.lanes
    ]


def _device(settings: TrainerSettings) -> tuple[Device | None, float | None]:
    """Describe the device and measure its rate; None without torch."""
    try:
        from services.trainer.machine.device import (
            best_precision,
            local_device,
            matrix_rate,
            training_memory,
        )
    except (ImportError, OSError):
        return None, None
    name = local_device()
    precision = best_precision(name)
    memory = training_memory(name, settings.memory_limit)
    return Device(name, precision, memory), matrix_rate(name, precision)


def _report(
    models: Models,
    file: ModelFile,
    lane: Lane,
    bases: Path,
    work: WorkFolder,
    device: Device | None,
    rate: float | None,
) -> LaneReport:
    shape, missing = _shape(bases, file)
    parent = _newest_configuration(work, file)
    effective = effective_settings(
        file.lanes[lane].training, shape, device, parent, has_master="master" in file.lanes
    )
    config = effective.config
    return LaneReport(
        model=file.model,
        lane=lane,
        device=_describe(device),
        settings=tuple(
            EffectiveSetting(name=name, value=getattr(config, name), reason=reason)
            for name, reason in effective.reasons.items()
        ),
        rehearsal=_rehearsal(models, file.model, lane),
        memory=_memory(shape, config, device, missing),
        time=estimate_time(
            shape, config, _size(models, file, lane, config), _earlier(work, file, config), rate
        ),
    )


def _describe(device: Device | None) -> str:
    if device is None:
        return f"unknown device: PyTorch is not installed; run {install_command('trainer')}"
    memory = format_bytes(device.memory) if device.memory < UNLIMITED else "unknown memory"
    return f"{device.name}, {device.precision}, {memory}"


def _shape(bases: Path, file: ModelFile) -> tuple[ModelShape | None, str]:
    """Return the base's dimensions, or None and the reason."""
    try:
        shape = read_shape(base_folder(bases, file.base.training, local_only=True))
    except SettingsError as error:
        return None, str(error)
    except RunFailed as failure:
        return None, failure.reason
    return shape, "the base's configuration uses unknown names"


def _rehearsal(models: Models, model: str, lane: Lane) -> str:
    prompts = len(models.rehearsal(model, lane))
    match models.get(model).lanes[lane].rehearsal:
        case None:
            left_out = len(built_in_rehearsal()) - prompts
            note = f", without {left_out} that the evaluation sets contain" if left_out else ""
            return f"{prompts} built-in prompts{note}: the base's own answers hold back forgetting"
        case "none":
            return "none, as set in the model file"
        case name:
            return f"{prompts} prompts of {name}"


def _memory(
    shape: ModelShape | None, config: TrainingConfig, device: Device | None, missing: str
) -> Estimate:
    if shape is None:
        return Estimate(basis=f"no estimate: {missing}")
    batch = BatchTokens.largest((), config.batch_size, config.max_tokens)
    needed = estimate_needs(shape, config, device.precision if device else "fp32", batch).total
    return Estimate(
        lowest=needed,
        highest=needed,
        basis=f"batches of {config.batch_size} examples of {config.max_tokens} tokens",
    )


def _size(models: Models, file: ModelFile, lane: Lane, config: TrainingConfig) -> RunSize:
    """Estimate the data of one pass; a batch's examples count as long as those
    of the golden set."""
    new = file.curation.batch_size if lane == "adaptive" else MASTER_EXAMPLES
    golden = [_tokens(example.messages, example.answer) for example in models.golden(file.model)]
    each = sum(golden) / len(golden) if golden else UNKNOWN_EXAMPLE_TOKENS
    rehearsed, learned = len(models.rehearsal(file.model, lane)), new + config.replay
    return RunSize(
        examples=learned + rehearsed,
        tokens=learned * min(each, config.max_tokens) + rehearsed * REHEARSED_TOKENS,
        basis="as in the golden set, about" if golden else "an assumption, without a golden set",
    )


def _tokens(messages: Sequence[Message], answer: str) -> float:
    texts = [*(message.content for message in messages), answer]
    return sum(len(text) / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS for text in texts)


def _newest_configuration(work: WorkFolder, file: ModelFile) -> Configuration | None:
    """Return the configuration of the newest promoted adapter that this machine trained, whose
    shape the next run keeps.
    """
    outcomes = work.newest_outcomes()
    return next(
        (
            outcome.configuration
            for outcome in outcomes
            if isinstance(outcome, CheckpointSaved)
            and (outcome.model, outcome.base) == (file.model, file.base.training)
        ),
        None,
    )


def _earlier(work: WorkFolder, file: ModelFile, config: TrainingConfig) -> list[RunDuration]:
    """Return the durations of the newest runs with the same settings on the same base."""
    expected = config.model_dump(exclude={"seed"})
    found = []
    for outcome in work.newest_outcomes():
        same = (outcome.model, outcome.base) == (
            file.model,
            file.base.training,
        ) and outcome.configuration.model_dump(exclude={"seed"}) == expected
        if same and outcome.evaluation == 1 and outcome.metrics is not None:
            metrics = outcome.metrics
            found.append(RunDuration(metrics.train_seconds, metrics.evaluate_seconds))
    return found[:MAX_EARLIER_RUNS]


def main() -> int:
    """Print the reports. Return the exit status."""
    reports: list[LaneReport] = []
    status = exit_status(
        "trainer", lambda: reports.extend(lane_reports(read_settings(TrainerSettings)))
    )
    print(REPORTS.dump_json(reports).decode())
    return status


if __name__ == "__main__":
    sys.exit(main())
