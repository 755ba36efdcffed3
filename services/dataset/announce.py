"""Composition root of a training by hand: `python -m services.dataset.announce --model MODEL ...`.

Announces an imported dataset as a batch of its lane. It ends with one JSON object on standard
output. Exit status: 0 when the batch is announced, 1 when it is refused or something is
unavailable, 2 when the command or the configuration is wrong.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from services.dataset.build_settings import BuildSettings
from services.dataset.training_announcement import announce_batch, write_training_batch
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.config.settings import read_settings
from shared.errors import Misconfigured, RatchetError
from shared.events import Artefact, BatchReady
from shared.kafka.client import KafkaProducer
from shared.kafka.security import kafka_security
from shared.logs import configure
from shared.service.exit_status import CLEAN, FAILED, MISCONFIGURED
from shared.storage.object_store import FsspecStore


async def announce(arguments: argparse.Namespace, settings: BuildSettings) -> BatchReady:
    """Write and announce the batch that the arguments describe. Raises RatchetError."""
    log = configure("announce", settings.log_level, settings.log_format)
    models = load_models(settings.models)
    if arguments.model not in models.files:
        raise Misconfigured(f"no file in {settings.models} declares {arguments.model!r}")
    event = write_training_batch(
        FsspecStore(settings.object_store),
        models.get(arguments.model),
        arguments.dataset,
        arguments.previous,
        arguments.number,
        arguments.hyperparameters,
        SystemClock().now(),
    )
    producer = KafkaProducer(settings.bootstrap_servers, kafka_security(settings))
    try:
        await producer.start()
        await announce_batch(producer, event, log)
    finally:
        await producer.stop()
    return event


def main(argv: Sequence[str] | None = None) -> int:
    """Announce a batch and return the exit status."""
    try:
        event = asyncio.run(announce(_parser().parse_args(argv), read_settings(BuildSettings)))
    except Misconfigured as error:
        print(f"train: {error}", file=sys.stderr)
        return MISCONFIGURED
    except (RatchetError, OSError) as error:
        print(f"train: {error}; no batch was announced", file=sys.stderr)
        return FAILED
    print(to_json(event).decode(), flush=True)
    return CLEAN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.dataset.announce")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", type=_artefact, required=True, metavar="URI@DIGEST")
    parser.add_argument("--previous", type=_artefact, metavar="URI@DIGEST")
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--hyperparameters", type=_json_object, metavar="JSON")
    return parser


def _json_object(text: str) -> dict[str, Any]:
    value = from_json(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("expected a JSON object")
    return value


def _artefact(text: str) -> Artefact:
    uri, _, digest = text.rpartition("@")
    try:
        return Artefact(uri=uri, digest=digest)
    except ValidationError as error:
        raise argparse.ArgumentTypeError("expected URI@sha256:...") from error


if __name__ == "__main__":
    sys.exit(main())
