"""What was asked and answered a while ago, for feedback that only names the answer."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import cast

from ratchet_client.event import FeedbackFields, InvalidFeedback, Message


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer and what it was an answer to. `model` and `model_version` are Ratchet's names, None
    where the server tells none.
    """

    model: str
    model_version: str | None
    input: tuple[Message, ...]
    output: str
    finish_reason: str | None

    @property
    def size(self) -> int:
        """Characters of text, roughly what it takes in memory."""
        return len(self.output) + sum(len(turn["content"]) for turn in self.input)


class Generations:
    """The newest generations, bounded in number and in characters; the oldest go first. For several
    threads.
    """

    def __init__(self, most: int, most_characters: int) -> None:
        self._most = most
        self._most_characters = most_characters
        self._kept: OrderedDict[str, Generation] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, response_id: str, generation: Generation) -> None:
        with self._lock:
            if replaced := self._kept.pop(response_id, None):
                self._characters -= replaced.size
            self._kept[response_id] = generation
            self._characters += generation.size
            while self._kept and (
                len(self._kept) > self._most or self._characters > self._most_characters
            ):
                _, oldest = self._kept.popitem(last=False)
                self._characters -= oldest.size

    def fill_in(self, said: FeedbackFields) -> FeedbackFields:
        """Feedback with what is known of the answer that it names, where it does not say so itself.

        Raises InvalidFeedback when that answer is not kept, and the feedback does not say itself
        what was asked and answered.
        """
        said = cast(
            FeedbackFields, {name: value for name, value in said.items() if value is not None}
        )
        response_id = said.get("response_id")
        with self._lock:
            generation = self._kept.get(response_id) if response_id else None
        if generation is None:
            if response_id and not {"model", "input", "output"} <= said.keys():
                raise InvalidFeedback(
                    "response_id",
                    "names no answer that is kept; say model, input and output as well",
                )
            return said
        known: FeedbackFields = {
            "model": generation.model,
            "input": generation.input,
            "output": generation.output,
        }
        if generation.model_version:
            known["model_version"] = generation.model_version
        if generation.finish_reason:
            known["tags"] = {"finish_reason": generation.finish_reason, **(said.get("tags") or {})}
        whole: FeedbackFields = {**known, **said}
        if "tags" in known:
            whole["tags"] = known["tags"]
        return whole
