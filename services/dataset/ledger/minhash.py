"""Near-duplicate search by MinHash and locality-sensitive hashing, over shingles of three words.

The Jaccard similarity of two sets of shingles is estimated from 128 minima (Broder 1997, "On the
resemblance and containment of documents"); its standard error at 0.9 is 0.027. The cost of an event
depends on its own length, not on the number of indexed texts.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from zlib import crc32

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

from shared.events import Message

PERMUTATIONS = 128
_SCHEME = "affine32"
_SEED = 1
_SHINGLE_WORDS = 3
_WORD = re.compile(r"\w+")
# Prefers few misses to few candidates: every candidate is compared in full.
_FALSE_POSITIVES, _FALSE_NEGATIVES = 0.1, 0.9

Signature = str
"""The minima in base64: 128 numbers of 32 bits, little-endian."""


def prompt_words(messages: Iterable[Message]) -> list[str]:
    """Words of a prompt without its system messages, which an application sends before every prompt
    and which would make all prompts alike. A prompt of system messages only keeps them.
    """
    messages = tuple(messages)
    contents = [message.content for message in messages if message.role != "system"] or [
        message.content for message in messages
    ]
    return words_of(" ".join(contents))


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def signature_of(words: list[str]) -> Signature:
    """Return the signature of the shingles of some words. Fewer words than a shingle form one."""
    return _encode(_minhash(words))


def signatures_of(messages: Iterable[Message], answer: str) -> tuple[Signature, Signature]:
    """Return the signatures of a prompt alone, and of the prompt with its answer."""
    prompt, answer_words = prompt_words(messages), words_of(answer)
    of_prompt = _minhash(prompt)
    if len(prompt) < _SHINGLE_WORDS:
        return _encode(of_prompt), signature_of(prompt + answer_words)
    # The minima of a union are the element-wise minimum: only the shingles that reach into the
    # answer are left to hash.
    of_both = (
        np.minimum(of_prompt, _minhash(prompt[1 - _SHINGLE_WORDS :] + answer_words))
        if answer_words
        else of_prompt
    )
    return _encode(of_prompt), _encode(of_both)


@lru_cache
def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows for a similarity threshold. Cached, since their optimisation is slow."""
    lsh = MinHashLSH(
        threshold=min(threshold, 0.99),
        num_perm=PERMUTATIONS,
        weights=(_FALSE_POSITIVES, _FALSE_NEGATIVES),
    )
    return lsh.b, lsh.r


class MinHashIndex:
    """An index of signatures by name. `signature in index` is true if an indexed one has at least
    the threshold's similarity.

    Minima are cut into bands, and two signatures that share a band are compared. The index holds
    the minima, and the names for the checksum of each band: a third of the memory of datasketch's
    index. Two bands with the same checksum cost one more comparison.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._minima: dict[str, bytes] = {}
        self._names_by_band: dict[int, str | set[str]] = {}

    def __contains__(self, signature: Signature) -> bool:
        packed = base64.b64decode(signature)
        candidates: set[str] = set()
        for band in self._bands_of(packed):
            names = self._names_by_band.get(band)
            if isinstance(names, str):
                candidates.add(names)
            elif names:
                candidates |= names
        own = _unpack(packed)
        return any(
            np.count_nonzero(own == _unpack(self._minima[name])) / len(own) >= self._threshold
            for name in candidates
        )

    def contains_name(self, name: str) -> bool:
        return name in self._minima

    def add(self, name: str, signature: Signature) -> None:
        """Index a signature. It replaces an earlier one of the same name."""
        self.remove(name)
        self._minima[name] = base64.b64decode(signature)
        for band in self._bands_of(self._minima[name]):
            names = self._names_by_band.setdefault(band, name)
            if isinstance(names, set):
                names.add(name)
            elif names != name:
                self._names_by_band[band] = {names, name}

    def remove(self, name: str) -> None:
        """Remove a name. An unknown one is no error."""
        if (packed := self._minima.pop(name, None)) is None:
            return
        for band in self._bands_of(packed):
            names = self._names_by_band.get(band)
            if isinstance(names, set):
                names.discard(name)
            if not names or names == name:
                self._names_by_band.pop(band, None)

    def _bands_of(self, packed: bytes) -> Iterator[int]:
        """Yield the checksum of each band, seeded with the number of the band."""
        bands, rows = _bands(self._threshold)
        size = 4 * rows
        return (crc32(packed[band * size : (band + 1) * size], band) for band in range(bands))


_PERMUTATIONS = MinHash(num_perm=PERMUTATIONS, seed=_SEED, scheme=_SCHEME).permutations
"""Drawn once: the same for every signature, and more expensive to draw than to use."""


def _new_minhash() -> MinHash:
    return MinHash(
        num_perm=PERMUTATIONS,
        seed=_SEED,
        scheme=_SCHEME,
        hashfunc=crc32,
        permutations=_PERMUTATIONS,
    )


def _minhash(words: list[str]) -> npt.NDArray[np.uint32]:
    shingles = {
        " ".join(words[at : at + _SHINGLE_WORDS])
        for at in range(max(1, len(words) - _SHINGLE_WORDS + 1))
    }
    minhash = _new_minhash()
    minhash.update_batch([shingle.encode() for shingle in shingles])
    values: npt.NDArray[np.uint32] = minhash.hashvalues
    return values


def _encode(minima: npt.NDArray[np.uint32]) -> Signature:
    return base64.b64encode(minima.astype("<u4").tobytes()).decode()


def minhash_values(signature: Signature) -> npt.NDArray[np.uint32]:
    """Minima of a signature. The share of equal minima of two signatures is their similarity."""
    return _unpack(base64.b64decode(signature)).astype(np.uint32)


def _unpack(packed: bytes) -> npt.NDArray[np.uint32]:
    return np.frombuffer(packed, dtype="<u4")
