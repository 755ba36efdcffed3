"""An example as it is compared with others, and when it teaches nothing that an earlier one does
not.
"""

from dataclasses import dataclass

from services.dataset.ledger.similarity.candidate_index import (
    ExampleKeys,
    exact_key,
    keys_of,
    same_prompt,
)
from services.dataset.ledger.similarity.measure import similarity
from services.dataset.ledger.similarity.stored_text import prompt_text, shortened
from shared.storage.snapshots import Example


@dataclass(frozen=True, slots=True)
class ComparedExample:
    """The texts of an example to compare. `rejected` is the answer that a new correction corrects;
    it is not stored, and None for an earlier one.
    """

    prompt: str
    answer: str
    is_correction: bool
    rejected: str | None = None

    @classmethod
    def of(cls, example: Example) -> "ComparedExample":
        return cls(
            shortened(prompt_text(example.messages)),
            shortened(example.answer),
            example.feedback_type == "correction",
            None if example.rejected is None else shortened(example.rejected),
        )

    @property
    def keys(self) -> ExampleKeys:
        """The keys to index it by."""
        return keys_of(self.prompt, self.answer)

    @property
    def corrected_key(self) -> int:
        """The key of exactly its prompt and the answer that it corrects."""
        return exact_key(self.prompt, self.rejected or "")

    def corrects(self, earlier: "ComparedExample") -> bool:
        """True for the answer that this one corrects, to the same prompt. Case and blanks in the
        prompt make no difference, nor do blanks at the end of the answer.
        """
        return (
            self.rejected is not None
            and earlier.answer.rstrip() == self.rejected.rstrip()
            and same_prompt(earlier.prompt) == same_prompt(self.prompt)
        )

    def has_prompt_like(self, earlier: "ComparedExample", threshold: float) -> bool:
        return similarity(self.prompt, earlier.prompt) >= threshold

    def is_near_duplicate_of(self, earlier: "ComparedExample", threshold: float) -> bool:
        """True if this example teaches nothing that the earlier one does not.

        A correction teaches whatever differs from the answer that it corrects or that others
        approved. Only of two corrections of the same answer, similar is enough.
        """
        if not self.has_prompt_like(earlier, threshold):
            return False
        # Blanks at the end are nothing to learn; at the beginning they can be indentation.
        answer = earlier.answer.rstrip()
        if self.is_correction and (
            not earlier.is_correction or answer == (self.rejected or "").rstrip()
        ):
            return answer == self.answer.rstrip()
        return similarity(self.answer, earlier.answer) >= threshold
