"""Model card of an adapter: complete, and readable by the Hugging Face hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from services.trainer.run.model_card import model_card
from shared.events import (
    Artefact,
    BatchCounts,
    BatchReady,
    CheckpointSaved,
    OffsetRange,
    TrainingRolledBack,
)
from tests.support.tickets import DIGEST, NOW

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


def metadata_of(card: str) -> dict[str, Any]:
    metadata: dict[str, Any] = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]  # the library is untyped there
    return metadata


def test_metadata_names_base_licence_and_library() -> None:
    metadata = metadata_of(model_card(checkpoint(), BATCH, "apache-2.0"))
    assert (metadata["library_name"], metadata["license"], metadata["pipeline_tag"]) == (
        "peft",
        "apache-2.0",
        "text-generation",
    )
    assert metadata["base_model"] == checkpoint().base
    assert "lora" in metadata["tags"]
    pinned = checkpoint().model_copy(update={"base": "owner/name@main"})
    assert metadata_of(model_card(pinned, BATCH))["base_model"] == "owner/name"
    assert "license" not in metadata_of(model_card(pinned, BATCH))


def test_card_shows_data_training_and_verdict() -> None:
    text = ModelCard(model_card(checkpoint(), BATCH)).text
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
    assert "Hello" not in text, "a card quotes no example"


def test_card_of_a_rejected_adapter_warns_against_use() -> None:
    outcome = TrainingRolledBack.model_validate(
        json.loads((GOLDEN / "ratchet.TrainingRolledBack.v1.json").read_text())
    )
    assert "not for use" in model_card(outcome.model_copy(update={"outcome": "rejected"}), BATCH)
    assert "became no version" in model_card(
        outcome.model_copy(update={"outcome": "inconclusive"}), BATCH
    )


def test_card_counts_the_layers_of_adapted_projections() -> None:
    text = model_card(checkpoint(), BATCH, adapted={"self_attn.q_proj": 10, "mlp.up_proj": 9})
    assert (
        "| adapted projections | self_attn.q_proj in 10 layers, mlp.up_proj in 9 layers |" in text
    )
