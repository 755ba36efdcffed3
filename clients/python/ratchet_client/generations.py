"""Captured prompts and answers, for feedback that refers to an answer by its id."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import cast

from ratchet_client.event import FeedbackFields, InvalidFeedback, Message


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer and its prompt.

    `model` and `model_version` are Ratchet's names; the version is None when the server does not
    report it.
    """

    model: str
    model_version: str | None
    input: tuple[Message, ...]
    output: str
    finish_reason: str | None

    @property
    def size(self) -> int:
        """Number of characters, an approximation of the memory it takes."""
        return len(self.output) + sum(len(turn["content"]) for turn in self.input)


class Generations:
    """The newest generations, bounded in number and in characters; the oldest are evicted first.
    Thread-safe.
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

    def fill_in(self, feedback: FeedbackFields) -> FeedbackFields:
        """Add omitted fields from the answer that the feedback refers to.

        Raises InvalidFeedback when that answer is not stored and the feedback lacks its model,
        input or output.
        """
        fields = cast(
            FeedbackFields, {name: value for name, value in feedback.items() if value is not None}
        )
        response_id = fields.get("response_id")
        with self._lock:
            generation = self._kept.get(response_id) if response_id else None
        if generation is None:
            if response_id and not {"model", "input", "output"} <= fields.keys():
                raise InvalidFeedback(
                    "response_id",
                    "unknown captured answer; pass model, input and output as well",
                )
            return fields
        captured: FeedbackFields = {
            "model": generation.model,
            "input": generation.input,
            "output": generation.output,
        }
        if generation.model_version:
            captured["model_version"] = generation.model_version
        if generation.finish_reason:
            captured["tags"] = {
                "finish_reason": generation.finish_reason,
                **(fields.get("tags") or {}),
            }
        merged: FeedbackFields = {**captured, **fields}
        if "tags" in captured:
            merged["tags"] = captured["tags"]
        return merged
