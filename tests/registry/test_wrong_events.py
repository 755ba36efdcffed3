"""Events that the database refuses are dead letters on PostgreSQL and SQLite alike."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.registry.app import SUBSCRIPTIONS
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.codec import encode
from shared.messaging.dead_letters import DeadLetterInfo
from shared.messaging.topics import TRAINING_CHECKPOINTS
from tests.dead_letters.test_every_consumer import consume_all, records_of
from tests.dead_letters.test_malformed_input import golden_event
from tests.registry.deploy.test_deployment import Stage
from tests.support.registry_events import DatabaseFixture, checkpoint
from tests.support.wrong_records import odd_records


@pytest.mark.timeout(240)
@pytest.mark.parametrize("topic", SUBSCRIPTIONS)
async def test_odd_values_do_not_stop_postgresql(
    postgresql: Callable[[], str], tmp_path: Path, topic: str
) -> None:
    registry_db = DatabaseFixture(postgresql())
    stage = Stage(registry_db, tmp_path)
    event = SUBSCRIPTIONS[topic].event_type
    records = records_of(topic, odd_records(event, golden_event(event)))
    handled, dead = await consume_all(records, MemoryBus(), stage.registry.handle)
    assert handled | dead.keys() == set(range(len(records)))
    assert not handled & dead.keys()
    registry_db.close()


async def test_second_run_of_a_batch_is_a_dead_letter(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    stage, base = Stage(registry_db, tmp_path), registry_db.champion
    first = checkpoint("r1", base)
    second = checkpoint("r2", base).model_copy(update={"batch_id": first.batch_id})
    records = []
    for offset, event in enumerate((first, second, checkpoint("r3", base))):
        value, headers = encode(event, "trainer")
        records.append(Record(TRAINING_CHECKPOINTS, 0, offset, b"support", value, tuple(headers)))
    handled, dead = await consume_all(records, MemoryBus(), stage.registry.handle)
    assert handled == {0, 2}
    assert list(dead) == [1]
    info = DeadLetterInfo.from_headers(dead[1].headers)
    assert info is not None
    assert info.error == "ContractViolation"
    assert "contradicts what the registry has stored" in info.reason
