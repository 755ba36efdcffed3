"""Status of the next batch, rebuilt from the changelog of the table."""

from datetime import timedelta
from typing import Any

from services.dataset.waiting import statuses_of
from shared.config.model_file import ModelFile
from shared.messaging.bus import Record
from shared.messaging.topics import DATASET_ENTRIES
from tests.support.scored_feedback import START, SimulatedShard, model_file, scored


def text_of(shard: SimulatedShard) -> str:
    (status,) = statuses_of(shard.file, changelog(shard))
    return str(status)


def changelog(shard: SimulatedShard) -> list[Record]:
    table = {key: entry.encode() for key, entry in shard.entries.items()}
    table |= {key: record.encode() for key, record in shard.records.items()}
    # Of each value the last one counts; a deleted entry and another model do not.
    older = table | {"support#0|deleted": next(iter(table.values())), "supporter#0|e": b"{}"}
    values: list[tuple[str, bytes | None]] = [*older.items(), ("support#0|deleted", None)]
    return [
        Record(DATASET_ENTRIES, 0, offset, key.encode(), value, ())
        for offset, (key, value) in enumerate([*values, *table.items()])
    ]


def file_with(**curation: Any) -> ModelFile:
    return model_file(held_out_share=0.0, **curation)


def test_a_small_team_sees_which_limit_holds_its_examples_back() -> None:
    shard = SimulatedShard(file_with())
    for offset in range(24):
        shard.decide(scored(f"e{offset}", user_id=f"user{offset % 3}"), offset)
    assert text_of(shard) == (
        "50 needed: 15 usable, 9 held back by examples_per_user (3 users); closes with 35 more"
    )


def test_every_limit_is_named_with_its_examples() -> None:
    """Ann has used up her share of the window; Bob's three examples are of one conversation; Cleo
    is new.
    """
    shard = SimulatedShard(
        file_with(
            batch_size=2,
            examples_per_user=2,
            examples_per_conversation=2,
            user_share=0.5,
            share_window=2,
            new_user_hours=1.0,
            longest_wait_hours=24.0,
            smallest_batch=2,
        )
    )
    later = START + timedelta(hours=2)
    for offset in range(3):
        shard.decide(scored(f"ann{offset}", user_id="ann"), offset, START)
    shard.decide(scored("bob", user_id="bob", conversation_id="c"), 3, START)
    shard.decide(scored("low", "retracted"), 4, later)
    assert shard.training_members(0) == ["ann0", "ann1"]
    shard.decide(scored("cleo", user_id="cleo"), 5, later)
    assert text_of(shard) == (
        "2 needed: 1 usable, 1 held back by user_share (1 user), 1 held back by new_user_hours; "
        "closes with 1 more, or with 2 from 2026-01-02 00:00 UTC on"
    )


def test_a_conversation_over_its_limit_is_counted() -> None:
    shard = SimulatedShard(file_with(examples_per_conversation=2))
    for offset in range(4):
        user = f"user{offset}"
        shard.decide(scored(f"e{offset}", user_id=user, conversation_id="c"), offset)
    assert "2 usable, 2 held back by examples_per_conversation (1 conversation);" in text_of(shard)


def test_each_shard_has_a_status_even_an_empty_one() -> None:
    sharded = model_file().model_copy(update={"shards": 2})
    assert [str(status) for status in statuses_of(sharded, [])] == [
        "50 needed: 0 usable; closes with 50 more"
    ] * 2
