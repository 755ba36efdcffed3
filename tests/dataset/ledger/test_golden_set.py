"""Contamination by the golden set."""

from datetime import timedelta

import pytest

from services.dataset.ledger.golden_set import COMMON_AFTER, NGRAM_WORDS, CommonRuns, GoldenSet
from services.dataset.ledger.similarity.stored_text import prompt_text, shortened
from shared.events import Message
from tests.support.scored_feedback import (
    START,
    SimulatedShard,
    model_file,
    scored,
    withdrawal,
    words,
)

SYSTEM = Message(role="system", content=words("house rules", 50))


def prompt(text: str) -> tuple[Message, ...]:
    return (SYSTEM, Message(role="user", content=text))


def resembles(golden: GoldenSet, text: str) -> bool:
    asked = prompt(text)
    is_like = golden.is_like(shortened(prompt_text(asked)))
    return is_like or CommonRuns(golden, 0.9).contaminate(asked)


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


TEMPLATE = words("template", 30)
ONE_TEMPLATED = GoldenSet([prompt(f"{TEMPLATE} {words('golden', 8)}")])


def asked_with_template(number: int) -> str:
    return f"{TEMPLATE} {words(f'question {number}', 8)}"


def reasons(world: SimulatedShard) -> list[str]:
    return [entry.reason for entry in world.entries.values()]


def test_template_of_one_golden_prompt_is_found_to_be_common() -> None:
    world = SimulatedShard(model_file(held_out_share=0.0), ONE_TEMPLATED)
    for number in range(COMMON_AFTER + 5):
        world.decide(scored(f"e{number}", input=asked_with_template(number)), number)
        world.restart()
    assert reasons(world) == ["contaminated"] * COMMON_AFTER + ["approved"] * 5
    kept = [entry.prompt is not None for entry in world.entries.values()]
    assert kept == [True] * len(kept)


def test_quotation_in_similar_prompts_stays_contaminated() -> None:
    quoted = " ".join(words("golden", 200).split()[50:80])
    world = SimulatedShard(
        model_file(held_out_share=0.0), GoldenSet([prompt(words("golden", 200))])
    )
    for number in range(12):
        text = f"{words('other', 40)} {quoted} {words('more', 40)}{' please' * number}"
        world.decide(scored(f"e{number}", input=text), number)
    assert set(reasons(world)) == {"contaminated"}
    assert sum(entry.prompt is not None for entry in world.entries.values()) == 1


def test_question_of_the_golden_set_stays_contaminated() -> None:
    world = SimulatedShard(model_file(held_out_share=0.0), ONE_TEMPLATED)
    for number in range(COMMON_AFTER + 1):
        world.decide(scored(f"e{number}", input=asked_with_template(number)), number)
    golden = f"{TEMPLATE} {words('golden', 8)}"
    for number, text in enumerate((golden, golden + "?", golden + " please"), start=10):
        world.decide(scored(f"e{number}", input=text), number)
    assert reasons(world)[-4:] == ["approved", "contaminated", "contaminated", "contaminated"]


def test_withdrawn_evidence_counts_no_more() -> None:
    world = SimulatedShard(model_file(held_out_share=0.0), ONE_TEMPLATED)
    for number in range(COMMON_AFTER):
        user = "ann" if number == 0 else None
        text = asked_with_template(number)
        world.decide(scored(f"e{number}", input=text, user_id=user), number)
    world.withdraw(withdrawal("w", "ann"), 10)
    assert world.entries["support#0|e0"].prompt is None
    for number in (11, 12):
        world.decide(scored(f"e{number}", input=asked_with_template(number)), number)
        world.restart()
    assert reasons(world)[-2:] == ["contaminated", "approved"]


def test_expired_evidence_counts_no_more() -> None:
    world = SimulatedShard(model_file(held_out_share=0.0, deduplicate_days=1), ONE_TEMPLATED)
    for number in range(COMMON_AFTER + 1):
        later = START + timedelta(hours=20 * number)
        world.decide(scored(f"e{number}", input=asked_with_template(number)), number, later)
    assert reasons(world)[-1] == "contaminated"
