"""What examples are like: those that wait, that were trained on lately, and that are held out; and
the golden set, which never changes.
"""

from collections.abc import Sequence
from itertools import islice

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.minhash import MinHashIndex, Signature
from shared.config.model_file import ModelFile
from shared.events import Message
from shared.storage.dataset_entries import DatasetEntry, EntryDecision, EntryReason


class DuplicateIndex:
    """Finds out in constant time whether an example may stand beside those that are there.

    An example that was trained on is compared with while it is among the newest so many, and so is
    one that is held out. One that was withdrawn is not, but keeps its place while it is known: who
    else is among the newest does not depend on when it was withdrawn.
    """

    def __init__(self, model_file: ModelFile, golden: GoldenSet) -> None:
        policy = model_file.curation
        self._golden = golden
        self._texts = MinHashIndex(policy.similarity)
        self._trained_prompts = MinHashIndex(policy.similarity)
        self._held_out_prompts = MinHashIndex(policy.similarity)
        self._trained: dict[str, None] = {}
        self._held_out: dict[str, None] = {}
        lanes = model_file.lanes.values()
        self._trained_newest = max(
            policy.share_window * policy.batch_size, *(lane.replay_window for lane in lanes)
        )
        self._held_out_newest = model_file.gate.held_out_newest

    def __contains__(self, name: str) -> bool:
        """Whether the example of that feedback can be found."""
        return self._texts.contains_name(name)

    def find_conflict(
        self,
        decision: EntryDecision,
        messages: tuple[Message, ...],
        text: Signature,
        prompt: Signature,
    ) -> EntryReason | None:
        """Why an example that is good in itself is dropped after all."""
        other_side = self._trained_prompts if decision == "held_out" else self._held_out_prompts
        if prompt in other_side or self._golden.resembles(messages, prompt):
            return "contaminated"
        if decision in ("training", "held_out") and text in self._texts:
            return "near_duplicate"
        return None

    def add(self, entry: DatasetEntry) -> None:
        """Have an example found by those that are like it. One that was withdrawn from its batch
        has no signatures, and is not.
        """
        if entry.text is not None:
            self._texts.add(entry.feedback_id, entry.text)
        if entry.prompt is not None:
            (self._held_out_prompts if entry.decision == "held_out" else self._trained_prompts).add(
                entry.feedback_id, entry.prompt
            )
        if entry.decision == "held_out":
            self._held_out[entry.feedback_id] = None

    def add_trained(self, name: str) -> None:
        """An example was trained on, later than all before."""
        self._trained[name] = None

    def restore(
        self, trained: Sequence[CachedEntry], held_out: Sequence[CachedEntry]
    ) -> list[CachedEntry]:
        """Have found what was trained on and what is held out, each in its order, as far as it is
        among the newest or waits; the others.
        """
        for card in trained[-self._trained_newest :]:
            self.add(card.entry)
            self.add_trained(card.feedback_id)
        older = held_out[: -self._held_out_newest]
        for card in (
            *(card for card in older if card.is_waiting),
            *held_out[-self._held_out_newest :],
        ):
            self.add(card.entry)
        return [*trained[: -self._trained_newest], *(card for card in older if not card.is_waiting)]

    def stop_matching(self, name: str) -> None:
        """Have an example found no more; one that is not there is no error."""
        for index in (self._texts, self._trained_prompts, self._held_out_prompts):
            index.remove(name)

    def remove(self, name: str) -> None:
        """Have an example found no more, which leaves its place as well."""
        self.stop_matching(name)
        self._trained.pop(name, None)
        self._held_out.pop(name, None)

    def evict_old(self) -> list[str]:
        """Remove what is no longer among the newest, and say what that is."""
        left = list(islice(self._trained, max(0, len(self._trained) - self._trained_newest)))
        left += islice(self._held_out, max(0, len(self._held_out) - self._held_out_newest))
        for name in left:
            self.remove(name)
        return left
