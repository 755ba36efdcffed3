"""Contamination check against the golden set, which is used for evaluation only.

A prompt is too close to a golden prompt if it is the same but for case and spacing, similar to it,
or shares a run of 13 words with it (the overlap that Brown et al. 2020, arXiv:2005.14165, appendix
C, use for contamination). System messages do not count: an application sends the same one before
every prompt. Nor do runs of words that several golden prompts have, of a template for example.
"""

from collections import Counter
from collections.abc import Iterable

from services.dataset.ledger.minhash import prompt_words
from services.dataset.ledger.similarity.candidate_index import CandidateIndex, keys_of
from services.dataset.ledger.similarity.measure import similarity as similarity_of
from services.dataset.ledger.similarity.stored_text import prompt_text, shortened
from shared.events import Message
from shared.identity import prompt_identity

NGRAM_WORDS = 13
_SHARED_BY = 0.1
"""Share of the golden prompts, and at least two, that have a run of words which does not count."""


class GoldenSet:
    """The prompts of a golden set."""

    def __init__(
        self, prompts: Iterable[tuple[Message, ...]] = (), similarity: float = 0.9
    ) -> None:
        prompts = tuple(prompts)
        self.identities = frozenset(prompt_identity(prompt) for prompt in prompts)
        self._threshold = similarity
        self._texts = {
            str(number): shortened(prompt_text(prompt)) for number, prompt in enumerate(prompts)
        }
        self._index = CandidateIndex()
        for name, text in self._texts.items():
            self._index.add(name, keys_of(text, ""))
        self._ngrams = _particular_ngrams(prompts)

    def resembles(self, prompt: tuple[Message, ...], text: str) -> bool:
        """True if a prompt, given with its text to compare, is too close to one of the set."""
        return bool(self._texts) and (
            any(
                similarity_of(self._texts[name], text) >= self._threshold
                for name in self._index.with_similar_prompts(keys_of(text, ""))
            )
            or (bool(self._ngrams) and not self._ngrams.isdisjoint(_ngrams(prompt)))
        )


def _particular_ngrams(prompts: Iterable[tuple[Message, ...]]) -> frozenset[tuple[str, ...]]:
    """Return the runs of words of some prompts, except runs that several of them have."""
    different = {prompt_identity(prompt): prompt for prompt in prompts}
    counts = Counter(ngram for prompt in different.values() for ngram in set(_ngrams(prompt)))
    shared_by = max(2.0, _SHARED_BY * len(different))
    return frozenset(ngram for ngram, count in counts.items() if count < shared_by)


def _ngrams(prompt: tuple[Message, ...]) -> Iterable[tuple[str, ...]]:
    words = prompt_words(prompt)
    return (tuple(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1))
