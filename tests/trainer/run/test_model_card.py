"""The card of an adapter is filled in, and is one that the hub reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from services.trainer.run.model_card import card_of, licence_in
from shared.events import (
    Artefact,
    BatchCounts,
    BatchReady,
    CheckpointSaved,
    OffsetRange,
    TrainingRolledBack,
)
from tests.trainer.tickets import DIGEST, NOW

GOLDEN = Path("tests/shared/golden")
BATCH = BatchReady(
    event_id="b",
    occurred_at=NOW,
    model="support",
    model_digest=DIGEST,
    batch_id="b",
    shard=0,
    number=3,
    lane="adaptive",
    manifest=Artefact(uri="m", digest=DIGEST),
    counts=BatchCounts(training=50, preference=40, negative=12, held_out=6),
    offsets=(OffsetRange(topic="feedback.scored", partition=0, first=1, last=99),),
)


def checkpoint() -> CheckpointSaved:
    return CheckpointSaved.model_validate(
        json.loads((GOLDEN / "ratchet.CheckpointSaved.v1.json").read_text())
    )


def head(card: str) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]  # the library has no types there
    return found


def test_the_hub_reads_what_it_is_and_from_which_base() -> None:
    about = head(card_of(checkpoint(), BATCH, "apache-2.0"))
    assert (about["library_name"], about["license"], about["pipeline_tag"]) == (
        "peft",
        "apache-2.0",
        "text-generation",
    )
    assert about["base_model"] == checkpoint().base
    assert "lora" in about["tags"]
    pinned = checkpoint().model_copy(update={"base": "owner/name@main"})
    assert head(card_of(pinned, BATCH))["base_model"] == "owner/name"
    assert "license" not in head(card_of(pinned, BATCH))


def test_a_person_reads_data_training_and_verdict_in_it() -> None:
    text = ModelCard(card_of(checkpoint(), BATCH)).text
    for section in ("Intended use", "Data", "Training", "Evaluation", "Limits"):
        assert f"## {section}\n" in text
    assert "| trained on | 50 new, 25 replayed, 10 rehearsed |" in text
    assert "| in the batch | 50 examples, 40 preferences, 12 negatives |" in text
    for name, value in checkpoint().configuration.model_dump(mode="json").items():
        assert f"| {name} | {', '.join(value) if isinstance(value, list) else value} |" in text
    assert "| golden | 24 | -1.5000 | -0.5000 | +1.0000 | +0.7500 to +1.2500 |" in text
    assert "| exact_match on golden | 9 | 0.5000 | 0.7500 | +0.2500 |" in text
    assert "Decision: promote, against `v0_20260504_000000`. golden: better by 1.0 nats" in text
    assert "**reward hacking suspected**" in text
    assert "Training loss 0.5000 nats" in text
    assert "Hello" not in text, "no example and no answer is quoted"


def test_one_that_was_rejected_says_that_it_is_not_to_be_used() -> None:
    outcome = TrainingRolledBack.model_validate(
        json.loads((GOLDEN / "ratchet.TrainingRolledBack.v1.json").read_text())
    )
    assert "not to be used" in card_of(outcome.model_copy(update={"outcome": "rejected"}), BATCH)
    assert "became no version" in card_of(
        outcome.model_copy(update={"outcome": "inconclusive"}), BATCH
    )


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# Base\n", "mit"),
        ("---\ntags: [a]\n---\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\n- a\n---\n", None),
        ("---\n: : :\n---\n", None),
        ("# Base\n", None),
        (None, None),
    ],
)
def test_the_base_s_licence_is_what_its_card_says(
    tmp_path: Path, card: str | None, licence: str | None
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) == licence
