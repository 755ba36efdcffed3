"""What examples are like: those that wait, that were trained on lately, and that are held out; and the golden set, which never changes."""

from itertools import islice

from services.dataset.golden import Golden
from services.dataset.similarity import Signature, Similar
from shared.entries import Decision, Entry, Reason
from shared.events import Message


class Likeness:
    """Finds out in constant time whether an example may stand beside those that are there."""

    def __init__(self, similarity: float, golden: Golden) -> None:
        self._golden = golden
        self._texts = Similar(similarity)
        self._trained_prompts = Similar(similarity)
        self._held_out_prompts = Similar(similarity)
        self._held_out: dict[str, None] = {}

    def __contains__(self, name: str) -> bool:
        """Whether the example of that feedback can be found."""
        return self._texts.has(name)

    def against(self, decision: Decision, messages: tuple[Message, ...], text: Signature, prompt: Signature) -> Reason | None:
        """Why an example that is good in itself is dropped after all."""
        other_side = self._trained_prompts if decision == "held_out" else self._held_out_prompts
        if prompt in other_side or self._golden.resembles(messages, prompt):
            return "contaminated"
        if decision in ("training", "held_out") and text in self._texts:
            return "near_duplicate"
        return None

    def add(self, entry: Entry) -> None:
        """Have an example found by those that are like it. One that was withdrawn from its batch has no signatures, and is not."""
        if entry.text is not None:
            self._texts.add(entry.feedback_id, entry.text)
        if entry.prompt is not None:
            (self._held_out_prompts if entry.decision == "held_out" else self._trained_prompts).add(entry.feedback_id, entry.prompt)
            if entry.decision == "held_out":
                self._held_out[entry.feedback_id] = None

    def remove(self, name: str) -> None:
        """Have it found no more; one that is not there is no error."""
        for index in (self._texts, self._trained_prompts, self._held_out_prompts):
            index.remove(name)
        self._held_out.pop(name, None)

    def held_out_before(self, newest: int) -> list[str]:
        """What is held out, but for the newest so many."""
        return list(islice(self._held_out, max(0, len(self._held_out) - newest)))
