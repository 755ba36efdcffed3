"""Search for the examples that are worth comparing with a new one, in constant time.

A text is indexed by the smallest hashes of its character shingles. Two texts that share most of
their shingles share most of these (Broder 1997, "On the resemblance and containment of documents").
A hash that many texts have is of something that all of them share, and finds none of them.

Of a long text, some hashes are of its beginning and its end: in a prompt with a template, examples
or a document, that is where the question is.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from zlib import crc32

import numpy as np

from services.dataset.ledger.similarity.names_by_key import MAX_NAMES, Name, NamesByKey
from services.dataset.ledger.similarity.segments import figures_of

MAX_CANDIDATES = 8
_LEAST_SHARED = 4
"""Of this number of keys, a near-duplicate shares at least one."""
_KEYS = 8
_SHINGLE_CHARACTERS = 4
_LONG = 400
"""Characters from which on a text has keys of its beginning and its end as well."""
_EDGE, _EDGE_KEYS = 80, 8
"""Characters of the beginning and of the end, and number of their keys."""
_MULTIPLIERS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F], dtype=np.uint32)
_NO_TEXT = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class ExampleKeys:
    """Keys of an example: of its prompt, of its answer, and of exactly both. `prompt_id` is the
    same for exactly the same prompt. Examples with other figures are not worth comparing.
    """

    prompt_id: int
    prompt: tuple[int, ...]
    prompt_figures: int
    answer: tuple[int, ...]
    answer_figures: int
    exact: int


@lru_cache(maxsize=16)
def keys_of(prompt: str, answer: str) -> ExampleKeys:
    """Return the keys of a prompt and its answer."""
    return ExampleKeys(
        int.from_bytes(blake2b(prompt.encode(), digest_size=8).digest()),
        _smallest_hashes(prompt),
        figures_of(prompt),
        _smallest_hashes(answer),
        figures_of(answer),
        exact_key(prompt, answer),
    )


def exact_key(prompt: str, answer: str) -> int:
    """Return the key of exactly this prompt and answer, but for case and blanks in the prompt and
    blanks at the end of the answer.
    """
    return crc32(answer.rstrip().encode(), crc32(same_prompt(prompt).encode()))


def same_prompt(prompt: str) -> str:
    """Return a prompt in one spelling of its case and blanks, as `shared.identity` compares it."""
    return " ".join(prompt.lower().split())


class CandidateIndex:
    """Examples by name. The result of a search depends on what is indexed, not on the order in
    which it was added; it has at most `MAX_CANDIDATES` names.

    Keys of prompts lead to different prompts, not to examples: a prompt with many different answers
    is found by its keys as any other is.
    """

    def __init__(self) -> None:
        self._keys: dict[str, tuple[int, bytes, int, int]] = {}
        self._prompt_keys: dict[int, tuple[bytes, int]] = {}
        self._names_by_prompt: NamesByKey[str] = NamesByKey()
        self._prompts: NamesByKey[int] = NamesByKey()
        self._answers: NamesByKey[str] = NamesByKey()
        self._exact: NamesByKey[str] = NamesByKey()

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def with_similar_prompts(self, keys: ExampleKeys) -> list[str]:
        """Return one name for each of the prompts that share the most keys with this one."""
        shared, telling = self._prompts.shared(keys.prompt)
        prompts = _best(shared, telling, lambda prompt: self._has_figures(prompt, keys))
        # Any name of a prompt will do: what is compared is the prompt.
        return [next(iter(self._names_by_prompt.names(prompt))) for prompt in prompts]

    def similar(self, keys: ExampleKeys) -> list[str]:
        """Return the names that share the most keys of prompt and answer: at least a quarter of the
        keys that are not common to many texts.
        """
        prompts, telling = self._prompts.shared(keys.prompt)
        shared, telling_of_answer = self._answers.shared(keys.answer)
        exact, telling_exact = self._exact.shared([keys.exact])
        for name in exact:
            shared[name] = shared.get(name, 0) + 1
        for prompt in _best(prompts, 0, lambda prompt: self._has_figures(prompt, keys), MAX_NAMES):
            names = self._names_by_prompt.names(prompt)
            if len(names) <= MAX_NAMES:
                for name in names:
                    shared[name] = shared.get(name, 0) + prompts[prompt]

        def has_figures(name: str) -> bool:
            prompt, _, _, figures = self._keys[name]
            return figures == keys.answer_figures and self._has_figures(prompt, keys)

        return _best(shared, telling + telling_of_answer + telling_exact, has_figures)

    def exact(self, key: int) -> list[str]:
        """Return the names with this key of a prompt and an answer."""
        return _best(*self._exact.shared([key]), lambda _: True)

    def add(self, name: str, keys: ExampleKeys) -> None:
        """Index a name by its keys. It replaces an earlier one of the same name."""
        self.remove(name)
        self._keys[name] = keys.prompt_id, _pack(keys.answer), keys.exact, keys.answer_figures
        if not self._names_by_prompt.names(keys.prompt_id):
            self._prompt_keys[keys.prompt_id] = _pack(keys.prompt), keys.prompt_figures
            self._prompts.add(keys.prompt_id, keys.prompt)
        self._names_by_prompt.add(name, [keys.prompt_id])
        self._answers.add(name, keys.answer)
        self._exact.add(name, [keys.exact])

    def remove(self, name: str) -> None:
        """Remove a name. An unknown one is no error."""
        if name not in self._keys:
            return
        prompt_id, answer, exact, _ = self._keys.pop(name)
        self._names_by_prompt.remove(name, [prompt_id])
        if not self._names_by_prompt.names(prompt_id):
            self._prompts.remove(prompt_id, _unpack(self._prompt_keys.pop(prompt_id)[0]))
        self._answers.remove(name, _unpack(answer))
        self._exact.remove(name, [exact])

    def _has_figures(self, prompt_id: int, keys: ExampleKeys) -> bool:
        return self._prompt_keys[prompt_id][1] == keys.prompt_figures


def _best(
    shared: Mapping[Name, int],
    telling: int,
    is_worth_it: Callable[[Name], bool],
    most: int = MAX_CANDIDATES,
) -> list[Name]:
    """Return the names with the most shared keys, of `telling` ones."""
    least = max(1, telling // _LEAST_SHARED)
    found = (name for name, count in shared.items() if count >= least and is_worth_it(name))
    return sorted(found, key=lambda name: (-shared[name], name))[:most]


def _pack(keys: Iterable[int]) -> bytes:
    return np.array(tuple(keys), dtype=np.uint32).tobytes()


def _unpack(packed: bytes) -> list[int]:
    keys: list[int] = np.frombuffer(packed, dtype=np.uint32).tolist()
    return keys


def _smallest_hashes(text: str) -> tuple[int, ...]:
    """Return the smallest hashes of a text's shingles, without case, blanks and punctuation."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    letters = _NO_TEXT.sub("", text.lower()) or text.strip()
    characters = np.frombuffer(letters.encode("utf-32-le"), dtype="<u4").astype(np.uint32)
    if len(characters) < _SHINGLE_CHARACTERS:
        characters = np.pad(characters, (0, _SHINGLE_CHARACTERS - len(characters)))
    last = len(characters) - _SHINGLE_CHARACTERS + 1
    hashes = np.zeros(last, dtype=np.uint32)
    for at, multiplier in enumerate(_MULTIPLIERS):
        hashes += characters[at : at + last] * multiplier
    hashes ^= hashes >> np.uint32(15)
    hashes *= np.uint32(0x2C1B3C6D)
    hashes ^= hashes >> np.uint32(12)
    edges: list[int] = []
    if last >= _LONG:
        for edge in (hashes[:_EDGE], hashes[-_EDGE:]):
            edges += np.unique(edge)[:_EDGE_KEYS].tolist()
    hashes.sort()
    # Of a text with much repetition, the smallest ones may all be the same.
    smallest = sorted(set(hashes[: 4 * _KEYS].tolist()))
    if len(smallest) < _KEYS:
        smallest = np.unique(hashes)[:_KEYS].tolist()
    return tuple(dict.fromkeys([*smallest[:_KEYS], *edges]))
