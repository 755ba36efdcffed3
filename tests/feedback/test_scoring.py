import json
from pathlib import Path
from typing import Any

import pytest

from services.feedback.scoring import score
from shared.bus import Record
from shared.errors import ContractViolation, Undecodable, UnknownModel
from shared.model_file import ModelFile, Models

FILE = ModelFile.model_validate({"model": "support", "base": {"training": "base", "serving": "base.gguf"}, "shards": 4})
MODELS = Models({"support": FILE}, Path())
SAID: dict[str, Any] = {
    "event_id": "e",
    "occurred_at": "2026-01-01T00:00:00Z",
    "model": "support",
    "input": [{"role": "user", "content": "q"}],
    "output": "a",
    "feedback_type": "thumbs_up",
    "user_id": "ann",
}


def record(headers: tuple[tuple[str, bytes], ...] = (), **changed: Any) -> Record:
    return Record("feedback.received", 2, 17, None, json.dumps(SAID | changed).encode(), headers)


def test_a_scored_event_says_all_that_was_said_and_how_it_was_scored() -> None:
    scored = score(record(), MODELS)
    event = scored.event
    assert event.model_dump(mode="json", include=set(SAID)) == SAID
    assert (event.reward, event.policy.name, event.model_digest) == (1.0, "default", FILE.digest)
    assert (event.received.topic, event.received.partition, event.received.offset) == ("feedback.received", 2, 17)
    assert scored.key == f"support#{event.shard}"


def test_all_feedback_of_one_user_goes_to_one_shard() -> None:
    assert len({score(record(event_id=str(number), output=str(number)), MODELS).event.shard for number in range(20)}) == 1
    assert len({score(record(event_id=str(number), user_id=str(number)), MODELS).event.shard for number in range(50)}) == 4


def test_feedback_for_a_model_that_is_not_declared_is_refused_by_name() -> None:
    with pytest.raises(UnknownModel, match="no model file declares 'other'"):
        score(record(model="other"), MODELS)


def test_what_is_no_event_is_refused_with_the_field() -> None:
    with pytest.raises(Undecodable):
        score(Record("feedback.received", 0, 0, None, b"{", ()), MODELS)
    with pytest.raises(ContractViolation) as refused:
        score(record(validation_score=2), MODELS)
    assert refused.value.field == "validation_score"


def test_a_source_that_makes_the_identity_too_long_is_refused() -> None:
    headers = (("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_id", b"e"), ("ce_source", b"s" * 300))
    with pytest.raises(ContractViolation) as refused:
        score(record(headers), MODELS)
    assert refused.value.field == "source"
    assert score(record((*headers[:3], ("ce_source", b"s" * 254))), MODELS).event.identity == "s" * 254 + "|e"
