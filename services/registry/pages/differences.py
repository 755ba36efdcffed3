"""What two versions differ in. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Nested = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that is not the same in both; None where one of them has none."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """What two versions answered to the same prompt."""

    messages: tuple[Mapping[str, str], ...]
    first: str
    second: str

    @property
    def same(self) -> bool:
        return self.first == self.second


def differences(first: Nested, second: Nested) -> list[Difference]:
    """The values of two nested mappings that differ, under names with dots, in the order of the
    first and then of the second.
    """
    one, other = dict(_flat(first)), dict(_flat(second))
    return [
        Difference(name, one.get(name), other.get(name))
        for name in one | other
        if one.get(name) != other.get(name)
    ]


def answer_pairs(first: Iterable[Nested], second: Iterable[Nested]) -> list[AnswerPair]:
    """The prompts that both versions were probed with, in the order of the first, with both
    answers. A probe is that of an event.
    """
    others = {_prompt(probe): answer_of(probe) for probe in second}
    return [
        AnswerPair(tuple(probe["messages"]), answer_of(probe), others[_prompt(probe)])
        for probe in first
        if _prompt(probe) in others
    ]


def answer_of(probe: Nested) -> str:
    """A probe's answer as a text, without the token that ends it."""
    texts = [token["text"] for token in probe["answer"]]
    if texts and texts[-1].startswith("<") and texts[-1].endswith(">"):
        texts.pop()
    return "".join(texts)


def _prompt(probe: Nested) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in probe["messages"])


def _flat(values: Nested, before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value
