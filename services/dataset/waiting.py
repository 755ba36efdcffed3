"""Status of the next batch of a model: `python -m services.dataset.waiting --model MODEL`.

Reads the table of entries from Kafka, and recovers from it as the service does. Prints a JSON
object with one status for each shard. Exit status: 0, 1 when Kafka is unavailable, 2 when the
command or the configuration is wrong.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable

from pydantic_core import to_json

from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.recovery import ShardState, read_state
from shared.config.model_file import ModelFile
from shared.config.models import load_models
from shared.config.settings import ServiceSettings, read_settings
from shared.errors import Misconfigured, RatchetError
from shared.events import WaitingStatus
from shared.kafka.security import kafka_security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import Record
from shared.messaging.topics import DATASET_ENTRIES
from shared.service.exit_status import CLEAN, FAILED, MISCONFIGURED


def statuses_of(model_file: ModelFile, records: Iterable[Record]) -> list[WaitingStatus]:
    """Return the status of each shard, from the records of the table's changelog in order."""
    table: dict[bytes, bytes] = {}
    prefix = f"{model_file.model}#".encode()
    for record in records:
        if record.key is not None and record.key.startswith(prefix):
            if record.value is None:
                table.pop(record.key, None)
            else:
                table[record.key] = record.value
    state, _ = read_state(table.items(), lambda partition: True)
    shards = [
        state.get((model_file.model, shard), ShardState()) for shard in range(model_file.shards)
    ]
    return [
        Ledger.rebuild(model_file, number, GoldenSet(), shard.entries, shard.batches).waiting_status
        for number, shard in enumerate(shards)
    ]


async def read_statuses(model: str, settings: ServiceSettings) -> list[WaitingStatus]:
    """Read the status of each shard of a model. Raises Misconfigured, BusUnavailable."""
    model_file = load_models(settings.models).require(model)
    reader = KafkaTopicReader(
        settings.bootstrap_servers, (DATASET_ENTRIES,), kafka_security(settings)
    )
    await reader.start()
    try:
        return statuses_of(model_file, await reader.read_new())
    finally:
        await reader.stop()


def main() -> int:
    """Print the statuses and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.dataset.waiting")
    parser.add_argument("--model", required=True)
    try:
        model = parser.parse_args().model
        statuses = asyncio.run(read_statuses(model, read_settings(ServiceSettings)))
    except Misconfigured as error:
        print(f"waiting: {error}", file=sys.stderr)
        return MISCONFIGURED
    except RatchetError as error:
        print(f"waiting: {error}", file=sys.stderr)
        return FAILED
    shards = [{"text": str(status), **status.model_dump()} for status in statuses]
    print(to_json({"model": model, "shards": shards}).decode())
    return CLEAN


if __name__ == "__main__":
    sys.exit(main())
