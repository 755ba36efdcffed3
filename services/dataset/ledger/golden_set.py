"""Contamination check against the golden set, which is used for evaluation only.

A prompt is too close to a golden prompt if it is the same but for case and spacing, nearly the same
by MinHash, or shares a run of 13 words with it (the overlap that Brown et al. 2020,
arXiv:2005.14165, appendix C, use for contamination). System messages do not count: an application
sends the same one before every prompt.
"""

from collections.abc import Iterable

from services.dataset.ledger.minhash import MinHashIndex, Signature, prompt_words, signature_of
from shared.events import Message
from shared.identity import prompt_identity

NGRAM_WORDS = 13


class GoldenSet:
    """The prompts of a golden set."""

    def __init__(
        self, prompts: Iterable[tuple[Message, ...]] = (), similarity: float = 0.9
    ) -> None:
        prompts = tuple(prompts)
        self.identities = frozenset(prompt_identity(prompt) for prompt in prompts)
        self._similar = MinHashIndex(similarity)
        for number, prompt in enumerate(prompts):
            self._similar.add(str(number), signature_of(prompt_words(prompt)))
        self._golden_ngrams = frozenset(ngram for prompt in prompts for ngram in _ngrams(prompt))

    def resembles(self, prompt: tuple[Message, ...], signature: Signature) -> bool:
        """True if a prompt, given with its signature, is too close to one of the set."""
        return signature in self._similar or (
            bool(self._golden_ngrams) and not self._golden_ngrams.isdisjoint(_ngrams(prompt))
        )


def _ngrams(prompt: tuple[Message, ...]) -> Iterable[tuple[str, ...]]:
    words = prompt_words(prompt)
    return (tuple(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1))
