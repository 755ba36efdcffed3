"""Index of near-duplicates and contamination: examples that wait, were trained on lately or are
held out, and the golden set.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.entry_index import EntryIndex
from services.dataset.ledger.golden_set import CommonRuns, GoldenSet
from services.dataset.ledger.similarity.candidate_index import CandidateIndex
from services.dataset.ledger.similarity.compared_example import ComparedExample
from services.dataset.ledger.similarity.stored_text import pack, unpack
from shared.config.model_file import ModelFile
from shared.events import Message
from shared.storage.dataset_entries import DatasetEntry, EntryDecision, EntryReason
from shared.storage.snapshots import Example


def with_compared_texts(entry: DatasetEntry) -> DatasetEntry:
    """Return a copy of a training or held-out entry that stores its texts to compare; `text` is the
    answer's.
    """
    if entry.example is None or entry.decision not in ("training", "held_out"):
        return entry
    texts = ComparedExample.of(entry.example)
    return entry.model_copy(update={"prompt": pack(texts.prompt), "text": pack(texts.answer)})


class DuplicateIndex:
    """Finds conflicts of a new example with earlier ones, in constant time.

    An example that was trained on is compared while it is among the newest of its window, and so is
    a held-out one. A withdrawn example is not compared, but keeps its place in the window while its
    entry exists: which others are among the newest does not depend on the time of the withdrawal.

    The texts of examples that have left their window are dropped from the cached entries, to save
    memory. The durable entries keep theirs. An entry of an earlier version that stores a signature
    instead is compared only while it waits, with its example.
    """

    def __init__(self, model_file: ModelFile, golden: GoldenSet, entries: EntryIndex) -> None:
        policy = model_file.curation
        self._golden = golden
        self._entries = entries
        self._threshold = policy.similarity
        self._common_runs = CommonRuns(golden, policy.similarity)
        self._training_index = CandidateIndex()
        self._held_out_index = CandidateIndex()
        self._trained: dict[str, None] = {}
        self._held_out: dict[str, None] = {}
        self._shrunk: list[CachedEntry] = []
        lanes = model_file.lanes.values()
        self._trained_newest = max(
            policy.share_window * policy.batch_size, *(lane.replay_window for lane in lanes)
        )
        self._held_out_newest = model_file.gate.held_out_newest

    def __contains__(self, feedback_id: str) -> bool:
        """True if new examples are compared with this one."""
        return feedback_id in self._training_index or feedback_id in self._held_out_index

    def find_conflict(self, decision: EntryDecision, example: Example) -> EntryReason | None:
        """Reason to drop an otherwise good example, None without a conflict. At most
        `MAX_CANDIDATES` texts of each side are compared.
        """
        new = ComparedExample.of(example)
        sides = (self._held_out_index, self._training_index)
        other_side = sides[decision == "held_out"]
        if any(
            new.has_prompt_like(earlier, self._threshold)
            for _, earlier in self._compared(other_side.with_similar_prompts(new.keys))
        ) or (self._golden.is_like(new.prompt) or self._common_runs.contaminate(example.messages)):
            return "contaminated"
        if decision in ("training", "held_out") and any(
            new.is_near_duplicate_of(earlier, self._threshold)
            for side in sides
            for _, earlier in self._compared(side.similar(new.keys))
        ):
            return "near_duplicate"
        return None

    def find_corrected(self, example: Example) -> list[DatasetEntry]:
        """Waiting examples of exactly the answer that a correction rejects, for the same prompt."""
        if example.rejected is None:
            return []
        correction = ComparedExample.of(example)
        return [
            entry
            for side in (self._held_out_index, self._training_index)
            for entry, earlier in self._compared(side.exact(correction.corrected_key))
            if entry.is_waiting and correction.corrects(earlier)
        ]

    def evidence_of(self, prompt: tuple[Message, ...]) -> str | None:
        """Return the stored form of a contaminated prompt that helps to find what is common."""
        text = self._common_runs.evidence_of(prompt)
        return None if text is None else pack(text)

    def add_evidence(self, cached_entry: CachedEntry) -> None:
        """Keep the prompt of a contaminated example that was stored as evidence."""
        if cached_entry.reason == "contaminated" and (
            (text := unpack(cached_entry.entry.prompt)) is not None
        ):
            self._common_runs.add(cached_entry.feedback_id, text)

    def _compared(
        self, feedback_ids: Iterable[str]
    ) -> Iterator[tuple[DatasetEntry, ComparedExample]]:
        """Yield entries with their compared form."""
        for feedback_id in feedback_ids:
            cached_entry = self._entries.get(feedback_id)
            entry = cached_entry.entry if cached_entry else None
            if entry and (compared := _compared_form(entry)):
                yield entry, compared

    def add(self, entry: DatasetEntry) -> None:
        """Compare later examples with this one. An entry withdrawn from its batch has no texts and
        is not compared.
        """
        if compared := _compared_form(entry):
            side = self._held_out_index if entry.decision == "held_out" else self._training_index
            side.add(entry.feedback_id, compared.keys)
        if entry.decision == "held_out":
            self._held_out[entry.feedback_id] = None

    def add_trained(self, feedback_id: str) -> None:
        """Record an example as the newest that was trained on."""
        self._trained[feedback_id] = None

    def restore(self, trained: Sequence[CachedEntry], held_out: Sequence[CachedEntry]) -> list[str]:
        """Index the newest examples that were trained on and held out, given in order, and those
        that wait. Return the feedback IDs of the rest.
        """
        for cached_entry in trained[-self._trained_newest :]:
            self.add(cached_entry.entry)
            self.add_trained(cached_entry.feedback_id)
        older = held_out[: -self._held_out_newest]
        waiting = (cached_entry for cached_entry in older if cached_entry.is_waiting)
        for cached_entry in (*waiting, *held_out[-self._held_out_newest :]):
            self.add(cached_entry.entry)
        rest = (*trained[: -self._trained_newest], *older)
        return [cached_entry.feedback_id for cached_entry in rest if not cached_entry.is_waiting]

    def stop_matching(self, feedback_id: str) -> None:
        """Stop comparing with an example; it keeps its place in the window. An unknown one is no
        error.
        """
        for index in (self._training_index, self._held_out_index, self._common_runs):
            index.remove(feedback_id)

    def remove(self, feedback_id: str) -> None:
        """Stop comparing with an example and free its place in the window."""
        self.stop_matching(feedback_id)
        self._trained.pop(feedback_id, None)
        self._held_out.pop(feedback_id, None)

    def evict_old(self) -> list[str]:
        """Remove the examples that are no longer among the newest. Return their feedback IDs."""
        evicted = list(islice(self._trained, max(0, len(self._trained) - self._trained_newest)))
        evicted += islice(self._held_out, max(0, len(self._held_out) - self._held_out_newest))
        for feedback_id in evicted:
            self.remove(feedback_id)
        return evicted

    def drop_texts(self, feedback_ids: Iterable[str]) -> None:
        """Cache the entries of evicted examples without texts. Entries that have expired or
        still wait are skipped.
        """
        for feedback_id in feedback_ids:
            cached_entry = self._entries.get(feedback_id)
            if cached_entry is None or cached_entry.is_waiting:
                continue
            entry = cached_entry.entry
            if entry.text is None and entry.prompt is None:
                continue
            # A copy shares its strings with the other indexes; a newly decoded entry would not.
            smaller = replace(cached_entry, encoded=entry.without_texts().encode())
            self._entries.recache(smaller)
            self._shrunk.append(smaller)

    def take_shrunk(self) -> list[CachedEntry]:
        """Return the entries that lost their texts since the last call."""
        shrunk, self._shrunk = self._shrunk, []
        return shrunk


def _compared_form(entry: DatasetEntry) -> ComparedExample | None:
    """The compared form of a training or held-out entry; None if it stores no texts."""
    prompt, answer = unpack(entry.prompt), unpack(entry.text)
    if prompt is None or answer is None:
        return None
    return ComparedExample(prompt, answer, entry.word == "correction")
