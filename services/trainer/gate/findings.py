"""Findings of the gate on one set or metric, and the words in which its reasons name them."""

from dataclasses import dataclass

from shared.config.gate import GateSettings


@dataclass(frozen=True)
class Improvement:
    """Result of looking for a gain on a set; `p_value` is the smallest error that shows it."""

    set_name: str
    is_shown: bool
    reason: str
    p_value: float = 1.0


@dataclass(frozen=True)
class Objection:
    """A set or metric on which the candidate is worse than allowed."""

    is_evident: bool
    reason: str


def too_few(name: str, examples: int, gate: GateSettings) -> str:
    return f"{name}: {examples} examples, {gate.minimum_examples} are needed to show a gain"


def certainty(is_evident: bool) -> str:
    return "" if is_evident else " (too few or too different to be sure)"


def label(name: str) -> str:
    """Return the name to show to people: the model file's keys and the metrics have short names."""
    return {
        "held_out": "held-out",
        "retention": "regression set",
        "canaries": "regression prompts",
        "exact_match": "exact match",
        "json_validity": "JSON validity",
        "bleu": "BLEU",
        "chrf": "chrF",
    }.get(name, name)
