"""Curation of imported examples by the rules for feedback: redaction, held-out prompts by hash,
near-duplicates, contamination, and the answer format of the reward policy.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from services.dataset.imports.records import ImportedExample, InvalidLine
from services.dataset.ledger.curation import assign_split
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.minhash import MinHashIndex, Signature, signatures_of
from shared.config.answer_format import format_check
from shared.config.model_file import ModelFile
from shared.events import FeedbackType, Message, feedback_id_of
from shared.identity import identity, prompt_identity
from shared.messaging.reasoning import messages_without_reasoning, without_reasoning
from shared.redaction.pii_match import PiiKind
from shared.redaction.redactor import Redactor
from shared.storage.dataset_entries import EntryDecision
from shared.storage.snapshots import Example

SOURCE = "/ratchet/import"
"""Source in the IDs of imported examples."""


@dataclass(frozen=True, slots=True)
class CuratedExample:
    """A decision with its reason; `example` is None for a dropped example."""

    decision: EntryDecision
    reason: str
    example: Example | None
    redactions: Mapping[PiiKind, int]


class ImportCuration:
    """Curates the examples of one file, in its order. Each example that is kept takes about 2 KB of
    memory.

    Of two examples in conflict, the first is kept. Prompts are compared with the prompts of the
    other side of the evaluation split, texts with all texts of earlier lines: the answers of one
    conversation are no duplicates of each other.
    """

    def __init__(self, model_file: ModelFile, golden: GoldenSet, redactor: Redactor) -> None:
        self._policy = model_file.curation
        self._keeps_reasoning = model_file.thinking == "keep"
        self._golden = golden
        self._redactor = redactor
        self._format_error: Callable[[str], str | None] = format_check(model_file.reward)
        self._ids: set[str] = set()
        self._texts = MinHashIndex(self._policy.similarity)
        self._trained_prompts = MinHashIndex(self._policy.similarity)
        self._held_out_prompts = MinHashIndex(self._policy.similarity)

    def curate(self, examples: Iterable[ImportedExample]) -> list[CuratedExample]:
        """Decide about the examples of one line. Raises InvalidLine for an answer of reasoning
        alone, or in another format than the reward policy requires: the model would learn it.
        """
        examples = tuple(examples if self._keeps_reasoning else map(_without_reasoning, examples))
        for example in examples:
            if not example.is_negative and (error := self._format_error(example.answer)):
                raise InvalidLine(f"the answer {error}, and the model would learn it")
        texts: list[tuple[str, Signature]] = []
        curated = [self._decide(example, texts) for example in examples]
        for name, text in texts:
            self._texts.add(name, text)
        return curated

    def _decide(
        self, imported: ImportedExample, texts: list[tuple[str, Signature]]
    ) -> CuratedExample:
        """Decide about one example. Its text is added to `texts`, to be compared later."""
        imported, redactions = self._redacted(imported)
        example = _example(imported)

        def dropped(reason: str) -> CuratedExample:
            return CuratedExample("dropped", reason, None, redactions)

        if example.feedback_id in self._ids:
            return dropped("duplicate")
        decision = assign_split(
            "negative" if imported.is_negative else "training",
            prompt_identity(example.messages),
            self._policy.held_out_share,
            self._golden.identities,
        )
        prompt, text = signatures_of(example.messages, example.answer)
        other_side = self._trained_prompts if decision == "held_out" else self._held_out_prompts
        if (
            decision == "dropped"
            or prompt in other_side
            or self._golden.resembles(example.messages, prompt)
        ):
            return dropped("contaminated")
        if decision != "negative":
            if text in self._texts:
                return dropped("near_duplicate")
            texts.append((example.feedback_id, text))
            own_side = self._held_out_prompts if decision == "held_out" else self._trained_prompts
            own_side.add(example.feedback_id, prompt)
        self._ids.add(example.feedback_id)
        return CuratedExample(
            decision, "held_out" if decision == "held_out" else "imported", example, redactions
        )

    def _redacted(self, example: ImportedExample) -> tuple[ImportedExample, Mapping[PiiKind, int]]:
        contents = [message.content for message in example.messages]
        rejected = [] if example.rejected is None else [example.rejected]
        redacted = self._redactor.redact_texts([*contents, example.answer, *rejected])
        if not redacted.counts:
            return example, {}
        texts = iter(redacted.texts)
        messages = tuple(
            Message(role=message.role, content=next(texts)) for message in example.messages
        )
        return replace(
            example, messages=messages, answer=next(texts), rejected=next(texts, None)
        ), redacted.counts


def _without_reasoning(example: ImportedExample) -> ImportedExample:
    answer = without_reasoning(example.answer)
    if not answer:
        raise InvalidLine("the answer is reasoning alone; complete it, or remove the line")
    return replace(
        example,
        messages=messages_without_reasoning(example.messages),
        answer=answer,
        rejected=without_reasoning(example.rejected or "") or None,
    )


def _example(imported: ImportedExample) -> Example:
    """Make the stored example. A demonstration counts as an accepted answer, the better answer of a
    pair as a correction of the other, and an answer to avoid as disliked.
    """
    feedback_type: FeedbackType
    if imported.is_negative:
        feedback_type, reward, quality = "thumbs_down", -1.0, 0.0
    elif imported.rejected is not None:
        feedback_type, reward, quality = "correction", -1.0, 1.0
    else:
        feedback_type, reward, quality = "accepted", 1.0, 1.0
    turns = [part for message in imported.messages for part in (message.role, message.content)]
    content = identity(feedback_type, imported.answer, imported.rejected or "", *turns)
    return Example(
        feedback_id=feedback_id_of(SOURCE, content),
        messages=imported.messages,
        answer=imported.answer,
        rejected=imported.rejected,
        feedback_type=feedback_type,
        reward=reward,
        quality=quality,
    )
