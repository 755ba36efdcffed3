"""Contamination check against the golden set, which is used for evaluation only.

A prompt is too close to a golden prompt if it is the same but for case and spacing, similar to it,
or shares a run of 13 words with it (the overlap that Brown et al. 2020, arXiv:2005.14165, appendix
C, use for contamination). System messages do not count: an application sends the same one before
every prompt. Nor do runs of words that several golden prompts have, of a template for example.
"""

from collections import Counter
from collections.abc import Iterable

from services.dataset.ledger.minhash import prompt_content, prompt_words, words_of
from services.dataset.ledger.similarity.candidate_index import CandidateIndex, keys_of
from services.dataset.ledger.similarity.measure import similarity as similarity_of
from services.dataset.ledger.similarity.stored_text import prompt_text, shortened
from shared.events import Message
from shared.identity import prompt_identity

NGRAM_WORDS = 13
_SHARED_BY = 0.1
"""Share of the golden prompts, and at least two, that have a run of words which does not count."""

COMMON_AFTER = 3
"""Number of different contaminated prompts that show a run to be common."""
_MOST_EVIDENCE = 8
_MAX_CHARACTERS = 50_000

Run = tuple[str, ...]


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

    def is_like(self, text: str) -> bool:
        """True if a prompt, given as its text to compare, is similar to one of the set."""
        return bool(self._texts) and any(
            similarity_of(self._texts[name], text) >= self._threshold
            for name in self._index.with_similar_prompts(keys_of(text, ""))
        )

    def runs_in(self, words: list[str]) -> frozenset[Run]:
        """Return the particular runs of words that a prompt shares with the set."""
        if not self._ngrams:
            return frozenset()
        return frozenset(ngram for ngram in _ngrams(words) if ngram in self._ngrams)


class CommonRuns:
    """Runs of words that different prompts of a model share with the golden set, such as those of a
    template or a document. They do not count.

    The first prompts with such a run are contaminated, and kept as evidence. Once `COMMON_AFTER` of
    them differ from each other, the run counts no longer. The result depends on what is kept, not
    on its order.
    """

    def __init__(self, golden: GoldenSet, similarity: float) -> None:
        self._golden = golden
        self._threshold = similarity
        self._texts: dict[str, str] = {}
        self._names_by_run: dict[Run, frozenset[str]] = {}
        self._are_different: dict[frozenset[str], bool] = {}

    def contaminate(self, prompt: tuple[Message, ...]) -> bool:
        """True if a prompt shares a run with the golden set that is not common."""
        return any(not self._is_common(names) for names in self._evidence_for(prompt))

    def evidence_of(self, prompt: tuple[Message, ...]) -> str | None:
        """Return the text of a contaminated prompt to keep; None if it adds nothing."""
        known = self._evidence_for(prompt)
        text = prompt_content(prompt)[:_MAX_CHARACTERS]
        if all(len(names) >= _MOST_EVIDENCE for names in known) or any(
            similarity_of(text, self._texts[name]) >= self._threshold
            for name in frozenset().union(*known)
        ):
            return None
        return text

    def add(self, name: str, text: str) -> None:
        """Keep the text of a contaminated prompt."""
        self._texts[name] = text
        for run in self._golden.runs_in(words_of(text)):
            self._names_by_run[run] = self._names_by_run.get(run, frozenset()) | {name}

    def remove(self, name: str) -> None:
        """Forget a prompt. An unknown name is no error."""
        if (text := self._texts.pop(name, None)) is None:
            return
        self._are_different.clear()
        for run in self._golden.runs_in(words_of(text)):
            if names := self._names_by_run.pop(run) - {name}:
                self._names_by_run[run] = names

    def _evidence_for(self, prompt: tuple[Message, ...]) -> set[frozenset[str]]:
        """Return the names of the prompts that have each of the runs of `prompt`."""
        runs = self._golden.runs_in(prompt_words(prompt))
        return {self._names_by_run.get(run, frozenset()) for run in runs}

    def _is_common(self, names: frozenset[str]) -> bool:
        if len(names) < COMMON_AFTER:
            return False
        if names not in self._are_different:
            different: list[str] = []
            for text in (self._texts[name] for name in sorted(names)[:_MOST_EVIDENCE]):
                if all(similarity_of(text, other) < self._threshold for other in different):
                    different.append(text)
            self._are_different[names] = len(different) >= COMMON_AFTER
        return self._are_different[names]


def _particular_ngrams(prompts: Iterable[tuple[Message, ...]]) -> frozenset[Run]:
    """Return the runs of words of some prompts, except runs that several of them have."""
    different = {prompt_identity(prompt): prompt_words(prompt) for prompt in prompts}
    counts = Counter(ngram for words in different.values() for ngram in set(_ngrams(words)))
    shared_by = max(2.0, _SHARED_BY * len(different))
    return frozenset(ngram for ngram, count in counts.items() if count < shared_by)


def _ngrams(words: list[str]) -> Iterable[Run]:
    return (tuple(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1))
