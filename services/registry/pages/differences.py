"""Differences between two versions. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Nested = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs between two mappings; None where it is missing in one."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """The answers of two versions to the same prompt."""

    messages: tuple[Mapping[str, str], ...]
    first: str
    second: str

    @property
    def same(self) -> bool:
        return self.first == self.second


def differences(first: Nested, second: Nested) -> list[Difference]:
    """Return the values that differ between two nested mappings, with dotted names, in the order of
    the first mapping and then of the second.
    """
    left, right = dict(_flatten(first)), dict(_flatten(second))
    return [
        Difference(name, left.get(name), right.get(name))
        for name in left | right
        if left.get(name) != right.get(name)
    ]


def answer_pairs(first: Iterable[Nested], second: Iterable[Nested]) -> list[AnswerPair]:
    """Return both answers to the prompts that both versions were probed with, in the order of the
    first version. Probes have the form of `CheckpointSaved.probes`.
    """
    answers = {_prompt(probe): answer_of(probe) for probe in second}
    return [
        AnswerPair(tuple(probe["messages"]), answer_of(probe), answers[_prompt(probe)])
        for probe in first
        if _prompt(probe) in answers
    ]


def answer_of(probe: Nested) -> str:
    """Return a probe's answer as text, without the end-of-turn token."""
    texts = [token["text"] for token in probe["answer"]]
    if texts and texts[-1].startswith("<") and texts[-1].endswith(">"):
        texts.pop()
    return "".join(texts)


def _prompt(probe: Nested) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in probe["messages"])


def _flatten(values: Nested, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
