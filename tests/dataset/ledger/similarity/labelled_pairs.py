"""Labelled pairs of examples. README.md has the rule by which they are labelled."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.events import Message

SETS = ("fresh", "held_out", "tuned")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PairText:
    """A prompt and its answer."""

    prompt: str
    answer: str

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt as one user message."""
        return (Message(role="user", content=self.prompt),)


@dataclass(frozen=True)
class LabelledPair:
    """Two examples; `label` is `same` if the second is a near-duplicate of the first."""

    label: Literal["same", "other"]
    language: str
    kind: str
    first: PairText
    second: PairText


@dataclass(frozen=True)
class Agreement:
    """Agreement of a measure with the labels, and the pairs that it got wrong."""

    precision: float
    recall: float
    wrong: tuple[LabelledPair, ...]


def labelled_pairs(name: str) -> list[LabelledPair]:
    """Read one set of pairs."""
    shared = passages()

    def text_of(cell: str) -> str:
        for passage, text in shared.items():
            cell = cell.replace(f"{{{passage}}}", text)
        return cell.replace("\\n", "\n")

    pairs = []
    for row in _rows(f"pairs_{name}.tsv"):
        prompt, answer = row["prompt"], row["answer"]
        other_prompt = prompt if row["other_prompt"] == "=" else row["other_prompt"]
        other_answer = answer if row["other_answer"] == "=" else row["other_answer"]
        pairs.append(
            LabelledPair(
                label="same" if row["label"] == "same" else "other",
                language=row["language"],
                kind=row["kind"],
                first=PairText(text_of(prompt), text_of(answer)),
                second=PairText(text_of(other_prompt), text_of(other_answer)),
            )
        )
    return pairs


def passages() -> dict[str, str]:
    """Return the passages that several pairs share, by name."""
    return {row["name"]: row["text"].replace("\\n", "\n") for row in _rows("passages.tsv")}


def agreement(
    pairs: Iterable[LabelledPair], are_same: Callable[[PairText, PairText], bool]
) -> Agreement:
    """Compare the decisions of a measure with the labels."""
    found = missed = wrongly_found = 0
    wrong = []
    for pair in pairs:
        decision = are_same(pair.first, pair.second)
        found += decision and pair.label == "same"
        missed += not decision and pair.label == "same"
        wrongly_found += decision and pair.label == "other"
        if decision != (pair.label == "same"):
            wrong.append(pair)
    return Agreement(
        precision=found / (found + wrongly_found) if found + wrongly_found else 1.0,
        recall=found / (found + missed),
        wrong=tuple(wrong),
    )


def _rows(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
