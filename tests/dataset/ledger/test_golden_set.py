"""Contamination by the golden set."""

import pytest

from services.dataset.ledger.golden_set import NGRAM_WORDS, GoldenSet
from services.dataset.ledger.similarity.stored_text import prompt_text, shortened
from shared.events import Message
from tests.support.scored_feedback import SimulatedShard, model_file, scored, words

SYSTEM = Message(role="system", content=words("house rules", 50))


def prompt(text: str) -> tuple[Message, ...]:
    return (SYSTEM, Message(role="user", content=text))


def resembles(golden: GoldenSet, text: str) -> bool:
    return golden.resembles(prompt(text), shortened(prompt_text(prompt(text))))


@pytest.mark.parametrize(
    ("text", "close"),
    [
        (words("golden", 200), True),
        (f"{words('golden', 200)} indeed", True),
        (
            f"{words('other', 40)} {' '.join(words('golden', 200).split()[50 : 50 + NGRAM_WORDS])} "
            f"{words('more', 40)}",
            True,
        ),
        (
            f"{words('other', 40)} "
            f"{' '.join(words('golden', 200).split()[50 : 50 + NGRAM_WORDS - 1])} "
            f"{words('more', 40)}",
            False,
        ),
        (words("other", 200), False),
        ("", False),
    ],
)
def test_near_copies_and_long_quotations_are_found(text: str, close: bool) -> None:
    assert resembles(GoldenSet([prompt(words("golden", 200))]), text) is close


def test_empty_golden_set_matches_nothing() -> None:
    assert not resembles(GoldenSet(), words("anything"))


@pytest.mark.parametrize("kind", ["correction", "thumbs_up", "thumbs_down"])
@pytest.mark.parametrize("held_out_share", [0.0, 0.99])
def test_golden_contamination_applies_to_both_sides(kind: str, held_out_share: float) -> None:
    world = SimulatedShard(
        model_file(held_out_share=held_out_share), GoldenSet([prompt(words("golden", 30))])
    )
    decided = world.decide(
        scored(
            "e", kind, -1.0 if kind == "thumbs_down" else 1.0, input=f"{words('golden', 30)} please"
        ),
        0,
    )
    assert decided.entry is not None
    assert (decided.entry.decision, decided.entry.reason) == ("dropped", "contaminated")
