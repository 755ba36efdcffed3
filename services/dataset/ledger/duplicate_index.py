"""Index of near-duplicates and contamination: examples that wait, were trained on lately or are
held out, and the golden set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.entry_index import EntryIndex
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.minhash import MinHashIndex, Signature
from shared.config.model_file import ModelFile
from shared.events import Message
from shared.storage.dataset_entries import DatasetEntry, EntryDecision, EntryReason


class DuplicateIndex:
    """Finds conflicts of a new example with earlier ones, in constant time.

    An example that was trained on is compared while it is among the newest of its window, and so is
    a held-out one. A withdrawn example is not compared, but keeps its place in the window while its
    entry exists: which others are among the newest does not depend on the time of the withdrawal.

    The signatures of examples that have left their window are dropped from the cached entries, to
    save memory. The durable entries keep theirs.
    """

    def __init__(self, model_file: ModelFile, golden: GoldenSet, entries: EntryIndex) -> None:
        policy = model_file.curation
        self._golden = golden
        self._entries = entries
        self._texts = MinHashIndex(policy.similarity)
        self._trained_prompts = MinHashIndex(policy.similarity)
        self._held_out_prompts = MinHashIndex(policy.similarity)
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
        return self._texts.contains_name(feedback_id)

    def find_conflict(
        self,
        decision: EntryDecision,
        messages: tuple[Message, ...],
        text: Signature,
        prompt: Signature,
    ) -> EntryReason | None:
        """Reason to drop an otherwise good example, None without a conflict."""
        other_side = self._trained_prompts if decision == "held_out" else self._held_out_prompts
        if prompt in other_side or self._golden.resembles(messages, prompt):
            return "contaminated"
        if decision in ("training", "held_out") and text in self._texts:
            return "near_duplicate"
        return None

    def add(self, entry: DatasetEntry) -> None:
        """Compare later examples with this one. An entry withdrawn from its batch has no
        signatures and is not compared.
        """
        if entry.text is not None:
            self._texts.add(entry.feedback_id, entry.text)
        if entry.prompt is not None:
            (self._held_out_prompts if entry.decision == "held_out" else self._trained_prompts).add(
                entry.feedback_id, entry.prompt
            )
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
        for index in (self._texts, self._trained_prompts, self._held_out_prompts):
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

    def drop_signatures(self, feedback_ids: Iterable[str]) -> None:
        """Cache the entries of evicted examples without signatures. Entries that have expired or
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
            smaller = replace(cached_entry, encoded=entry.without_signatures().encode())
            self._entries.recache(smaller)
            self._shrunk.append(smaller)

    def take_shrunk(self) -> list[CachedEntry]:
        """Return the entries that lost their signatures since the last call."""
        shrunk, self._shrunk = self._shrunk, []
        return shrunk
