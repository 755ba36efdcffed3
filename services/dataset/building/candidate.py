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
    """A question with its answer. `rewordings` are other questions with the same answer;
    `document` is the name of the document, None for a template, and `place` says where in it the
    answer is.
    """

    origin: Origin
    question: str
    answer: str
    document: str | None = None
    place: str | None = None
    rewordings: tuple[str, ...] = ()

    @property
    def questions(self) -> tuple[str, ...]:
        """All questions with this answer."""
        return (self.question, *self.rewordings)

    def as_examples(
        self, system: str | None, *, is_held_out: bool | None
    ) -> tuple[ImportedExample, ...]:
        """Make the examples to curate, one for each question."""
        instructions = (Message(role="system", content=system),) if system else ()
        return tuple(
            ImportedExample(
                (*instructions, Message(role="user", content=question)),
                self.answer,
                origin=f"{SOURCE}/{self.origin}",
                place=self.place,
                is_held_out=is_held_out,
            )
            for question in self.questions
        )
