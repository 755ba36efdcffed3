"""Candidates: examples before the filters, with their origin and their place."""

from dataclasses import dataclass
from typing import Literal, get_args

from services.dataset.imports.records import ImportedExample
from shared.events import Message

Origin = Literal["question", "section", "definition", "table", "transcript", "taught", "template"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)

SOURCE = "/ratchet/documents"
"""Source in the IDs of the examples, followed by their origin."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question with its answer. `document` is the name of the document, None for a template, and
    `place` says where in it the answer is.
    """

    origin: Origin
    question: str
    answer: str
    document: str | None = None
    place: str | None = None

    def as_example(self, system: str | None, *, is_held_out: bool | None) -> ImportedExample:
        """Make the example to curate."""
        instructions = (Message(role="system", content=system),) if system else ()
        return ImportedExample(
            (*instructions, Message(role="user", content=self.question)),
            self.answer,
            origin=f"{SOURCE}/{self.origin}",
            place=self.place,
            is_held_out=is_held_out,
        )
