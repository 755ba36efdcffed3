"""Curation of imported examples by the rules for feedback: redaction, held-out prompts by hash,
near-duplicates, contamination, and the answer format of the reward policy.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from services.dataset.imports.compared_file import ComparedFile
from services.dataset.imports.records import ImportedExample, InvalidLine
from services.dataset.ledger.curation import RedactionCheck, assign_split
from services.dataset.ledger.golden_set import CommonRuns, GoldenSet
from services.dataset.ledger.similarity.candidate_index import CandidateIndex
from services.dataset.ledger.similarity.compared_example import ComparedExample
from shared.config.answer_format import format_check
from shared.config.model_file import ModelFile
from shared.events import FeedbackType, Message, feedback_id_of
from shared.identity import identity, prompt_identity
from shared.messaging.reasoning import messages_without_reasoning, without_reasoning
from shared.redaction.pii_match import PiiKind
from shared.redaction.redactor import Redactor
from shared.storage.dataset_entries import EntryDecision
from shared.storage.snapshots import Example


@dataclass(frozen=True, slots=True)
class CuratedExample:
    """A decision with its reason; `example` is None for a dropped example."""

    decision: EntryDecision
    reason: str
    example: Example | None
    redactions: Mapping[PiiKind, int]


class ImportCuration:
    """Curates the examples of one file, in its order. Each example that is kept takes about 2 KB of
    memory, and its texts a place in a temporary file.

    Of two examples in conflict, the first is kept. Prompts are compared with the prompts of the
    other side of the evaluation split, examples with all examples of earlier lines: the answers of
    one conversation are no duplicates of each other. As for feedback, at most `MAX_CANDIDATES` of
    each side are compared.
    """

    def __init__(self, model_file: ModelFile, golden: GoldenSet, redactor: Redactor) -> None:
        self._policy = model_file.curation
        self._keeps_reasoning = model_file.thinking == "keep"
        self._golden = golden
        self._redactor = redactor
        self._format_error: Callable[[str], str | None] = format_check(model_file.reward)
        self._common_runs = CommonRuns(golden, self._policy.similarity)
        self._redaction = RedactionCheck(model_file)
        self._ids: set[str] = set()
        self._trained = CandidateIndex()
        self._held_out = CandidateIndex()
        self._compared = ComparedFile()

    def curate(self, examples: Iterable[ImportedExample]) -> list[CuratedExample]:
        """Decide about the examples of one line. Raises InvalidLine for an answer of reasoning
        alone, or in another format than the reward policy requires: the model would learn it.
        """
        examples = tuple(examples if self._keeps_reasoning else map(_without_reasoning, examples))
        for example in examples:
            if not example.is_negative and (error := self._format_error(example.answer)):
                raise InvalidLine(f"the answer {error}, and the model would learn it")
        same_line: set[str] = set()
        return [self._decide(example, same_line) for example in examples]

    def _decide(self, imported: ImportedExample, same_line: set[str]) -> CuratedExample:
        """Decide about one example. Its ID is added to those of its line."""
        imported, redactions = self._redacted(imported)
        example = _example(imported)

        def dropped(reason: str) -> CuratedExample:
            return CuratedExample("dropped", reason, None, redactions)

        if example.feedback_id in self._ids:
            return dropped("duplicate")
        if not imported.is_negative and (
            damage := self._redaction.reason_to_drop(example.messages, example.answer)
        ):
            return dropped(damage)
        decision = assign_split(
            "negative" if imported.is_negative else "training",
            prompt_identity(example.messages),
            self._policy.held_out_share
            if imported.is_held_out is None
            else float(imported.is_held_out),
            self._golden.identities,
        )
        new, threshold = ComparedExample.of(example), self._policy.similarity
        own_side, other_side = (
            (self._held_out, self._trained)
            if decision == "held_out"
            else (self._trained, self._held_out)
        )
        if (
            decision == "dropped"
            or any(
                new.has_prompt_like(self._compared[name], threshold)
                for name in other_side.with_similar_prompts(new.keys)
            )
            or self._golden.is_like(new.prompt)
            or self._common_runs.contaminate(example.messages)
        ):
            if evidence := self._common_runs.evidence_of(example.messages):
                self._common_runs.add(example.feedback_id, evidence)
            return dropped("contaminated")
        if decision != "negative":
            if any(
                new.is_near_duplicate_of(self._compared[name], threshold)
                for side in (own_side, other_side)
                for name in side.similar(new.keys)
                if name not in same_line
            ):
                return dropped("near_duplicate")
            own_side.add(example.feedback_id, new.keys)
            self._compared[example.feedback_id] = new
            same_line.add(example.feedback_id)
        self._ids.add(example.feedback_id)
        return CuratedExample(
            decision, "held_out" if decision == "held_out" else "imported", example, redactions
        )

    def _redacted(self, example: ImportedExample) -> tuple[ImportedExample, Mapping[PiiKind, int]]:
        contents = [message.content for message in example.messages]
        rejected = [] if example.rejected is None else [example.rejected]
        places = [] if example.place is None else [example.place]
        redacted = self._redactor.redact_texts([*contents, example.answer, *rejected, *places])
        if not redacted.counts:
            return example, {}
        texts = iter(redacted.texts)
        messages = tuple(
            Message(role=message.role, content=next(texts)) for message in example.messages
        )
        answer = next(texts)
        return replace(
            example,
            messages=messages,
            answer=answer,
            rejected=next(texts) if rejected else None,
            place=next(texts) if places else None,
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
        feedback_id=feedback_id_of(imported.origin, content),
        messages=imported.messages,
        answer=imported.answer,
        rejected=imported.rejected,
        feedback_type=feedback_type,
        reward=reward,
        quality=quality,
        source=imported.place,
    )
