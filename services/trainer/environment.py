"""Check of this machine: `python -m services.trainer.environment [--json] [--bases]`. Starts
without torch, so that it can report a missing one.
"""

import argparse
import asyncio
import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from services.trainer.errors import RunFailed
from services.trainer.machine.bases import base_folder
from services.trainer.machine.checks import Gpu, LaneMemory, MachineFacts, machine_checks
from services.trainer.machine.effective_settings import Device, effective_settings
from services.trainer.machine.memory import BatchTokens, estimate_needs
from services.trainer.machine.memory_fit import memory_refusal
from services.trainer.settings import TrainerSettings
from services.trainer.training.base_shape import read_shape
from shared.config.model_file import ModelFile
from shared.config.models import load_models
from shared.config.settings import read_settings
from shared.config.training import TrainingConfig
from shared.errors import Misconfigured, SettingsError
from shared.logs import Log
from shared.machine_check import Check, has_problem
from shared.python_command import module_command
from shared.service.exit_status import exit_status
from shared.storage.base_projections import describe_counts, layer_counts

CHECKS = TypeAdapter(list[Check])
_SHOWN = 300


def collect_facts(settings: TrainerSettings) -> MachineFacts:
    """Collect the facts about this machine for these settings. Imports torch if it is installed."""
    torch = _import_or_none("torch")
    gpus = _gpus(torch)
    cpu_bf16, memory, models_error = False, 0, ""
    lanes: tuple[LaneMemory, ...] = ()
    if torch is not None:
        from services.trainer.machine.device import best_precision, local_device, training_memory

        cpu_bf16, name = best_precision("cpu") == "bf16", local_device()
        memory = training_memory(name, settings.memory_limit)
        lanes, models_error = _lanes(settings, Device(name, best_precision(name), memory))
    return MachineFacts(
        system=platform.system(),
        is_wsl="microsoft" in platform.release().lower(),
        torch=None if torch is None else str(torch.__version__),
        cuda=None if torch is None else torch.version.cuda,
        gpus=gpus,
        has_nvidia_driver=shutil.which("nvidia-smi") is not None,
        bitsandbytes=importlib.metadata.version("bitsandbytes")
        if _import_or_none("bitsandbytes") is not None
        else None,
        cores=settings.threads or os.cpu_count() or 1,
        cpu_bf16=cpu_bf16,
        memory=memory,
        work_free=_free_bytes(settings.work),
        lanes=lanes,
        models_error=models_error,
    )


def _import_or_none(name: str) -> Any:
    """Import a module; None if it is missing or cannot be loaded. A library for a different CUDA
    version raises various errors.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None


def _gpus(torch: Any) -> tuple[Gpu, ...]:
    if torch is None or not torch.cuda.is_available():
        return ()
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return tuple(Gpu(gpu.name, gpu.total_memory, bf16=gpu.major >= 8) for gpu in gpus)


def _free_bytes(work: Path) -> int | None:
    try:
        work.mkdir(parents=True, exist_ok=True)
        probe = work / f".{uuid4().hex}"
        probe.touch()
        probe.unlink()
        return shutil.disk_usage(work).free
    except OSError:
        return None


def _lanes(settings: TrainerSettings, device: Device) -> tuple[tuple[LaneMemory, ...], str]:
    try:
        models = load_models(settings.models)
    except Misconfigured as error:
        return (), str(error)
    lanes = [
        _lane(settings.bases, model, lane, lane_settings.training, device)
        for model in models.files.values()
        for lane, lane_settings in model.lanes.items()
    ]
    return tuple(lanes), ""


def _lane(
    bases: Path, model: ModelFile, lane: str, declared: TrainingConfig, device: Device
) -> LaneMemory:
    try:
        shape = read_shape(base_folder(bases, model.base.training))
    except (SettingsError, RunFailed) as error:
        return LaneMemory(model.model, lane, declared.quantisation, None, missing_reason=str(error))
    if shape is None:
        return LaneMemory(model.model, lane, declared.quantisation, None)
    config = effective_settings(declared, shape, device).config
    required_bytes = estimate_needs(
        shape,
        config,
        device.precision,
        BatchTokens.largest((), config.batch_size, config.max_tokens),
    ).total
    matched = shape.matched(config.targets, config.layers)
    projections = [name for names in matched.values() for name in names]
    lengths = [(config.max_tokens, config.max_tokens // 2)] * config.batch_size
    refusal = memory_refusal(shape, config, device.precision, lengths, device.memory)
    return LaneMemory(
        model.model,
        lane,
        config.quantisation,
        required_bytes,
        advice=refusal[1] if refusal else "",
        adapted=describe_counts(layer_counts(projections)),
        absent_targets=tuple(target for target, names in matched.items() if not names),
    )


def check_bases(settings: TrainerSettings) -> list[Check]:
    """Check the base of every model, without its weights. A base that is not on this machine is
    left out; the check of its lanes reports it. Imports transformers.
    """
    try:
        models = load_models(settings.models).files.values()
    except Misconfigured:
        return []
    return [check for model in models for check in _base(settings.bases, model)]


def _base(bases: Path, model: ModelFile) -> list[Check]:
    from services.trainer.training.base_check import load_checked_vocabulary

    name = f"{model.model}/base"
    try:
        folder = base_folder(bases, model.base.training)
    except SettingsError:
        return []
    try:
        vocabulary = load_checked_vocabulary(str(folder), model.template_variables)
    except RunFailed as refusal:
        return [Check(name=name, state="problem", found=refusal.reason, advice=refusal.advice)]
    # The library raises errors of many kinds for files that it cannot read.
    except Exception as error:
        found = f"it cannot be loaded: {type(error).__name__}: {str(error)[:_SHOWN]}"
        advice = "check base.training in the model file, and RATCHET_BASES"
        return [Check(name=name, state="problem", found=found, advice=advice)]
    if not vocabulary.warnings:
        end = vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.end_tokens[0])
        return [
            Check(name=name, state="ok", found=f"{model.base.training}: answers end with {end}")
        ]
    return [
        Check(name=name, state="warning", found=warning, advice="compare the served answers")
        for warning in vocabulary.warnings
    ]


async def require_trainable_machine(log: Log) -> None:
    """Check this machine in another process, so that this one need not load torch. Log every row
    that is not `ok`.

    Raises Misconfigured if nothing can be trained here.
    """
    process = await asyncio.create_subprocess_exec(
        *module_command("services.trainer.environment", "--json"),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        checks = CHECKS.validate_json(output)
    except ValidationError:
        log.warning("machine", found="machine check failed, see error above")
        return
    for check in checks:
        if check.state != "ok":
            log.warning("machine", check=check.name, found=check.found, advice=check.advice)
    if has_problem(checks):
        problems = (
            f"{check.name}: {check.found}; {check.advice}"
            for check in checks
            if check.state == "problem"
        )
        raise Misconfigured("\n".join(problems))


def main() -> int:
    """Print the rows. Return the exit status: 1 if there is a problem."""
    parser = argparse.ArgumentParser(prog="services.trainer.environment", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--bases", action="store_true", help="check the models' bases as well")
    arguments = parser.parse_args()
    rows: list[Check] = []

    def collect() -> None:
        settings = read_settings(TrainerSettings)
        facts = collect_facts(settings)
        rows.extend(machine_checks(facts))
        if arguments.bases and facts.torch is not None:
            rows.extend(check_bases(settings))

    status = exit_status("trainer", collect)
    if arguments.json:
        print(CHECKS.dump_json(rows).decode())
    else:
        for row in rows:
            print(
                f"{row.state:8} {row.name}: {row.found}" + (f"; {row.advice}" if row.advice else "")
            )
    return status or int(has_problem(rows))


if __name__ == "__main__":
    sys.exit(main())
