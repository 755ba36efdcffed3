"""The golden set as what nothing may be trained on: it judges, and a judge who has been learnt by
heart finds everything good.

A prompt is too close to a golden one when it is the same but for case and spacing, nearly the same
by MinHash, or shares a run of 13 words with it (the overlap that Brown et al. 2020,
arXiv:2005.14165, appendix C, take for contamination). System messages do not count: an application
says the same one before every prompt.
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
        self._runs = frozenset(run for prompt in prompts for run in _ngrams(prompt))

    def resembles(self, prompt: tuple[Message, ...], signature: Signature) -> bool:
        """Whether a prompt, with its signature, is too close to one of the set."""
        return signature in self._similar or (
            bool(self._runs) and not self._runs.isdisjoint(_ngrams(prompt))
        )


def _ngrams(prompt: tuple[Message, ...]) -> Iterable[tuple[str, ...]]:
    words = prompt_words(prompt)
    return (tuple(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1))
