"""Near-duplicates by MinHash and locality-sensitive hashing, over runs of three words.

Jaccard similarity of the sets of runs, estimated from 128 minima (Broder 1997, "On the resemblance
and containment of documents"): its standard error at 0.9 is 0.027. The work for an event depends on
its own length, not on how many others are indexed.
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
# Few misses rather than few candidates: every candidate is compared in full.
_FALSE_POSITIVES, _FALSE_NEGATIVES = 0.1, 0.9

Signature = str
"""The minima in base64: 128 numbers of 32 bits, little-endian."""


def prompt_words(messages: Iterable[Message]) -> list[str]:
    """What counts of a prompt: all but its system messages, which an application says before every
    prompt and which would make all of them alike. Where there is nothing else, they count.
    """
    messages = tuple(messages)
    said = [message.content for message in messages if message.role != "system"] or [
        message.content for message in messages
    ]
    return words_of(" ".join(said))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def signature_of(words: list[str]) -> Signature:
    """The signature of the runs of some words; of all of them together where they are fewer than a
    run.
    """
    return _encode(_minhash(words))


def signatures_of(messages: Iterable[Message], answer: str) -> tuple[Signature, Signature]:
    """Of a prompt alone, and of the prompt and its answer together."""
    prompt, said = prompt_words(messages), words_of(answer)
    of_prompt = _minhash(prompt)
    if len(prompt) < _SHINGLE_WORDS:
        return _encode(of_prompt), signature_of(prompt + said)
    # The minima of a union are the lesser of the minima: only the runs that reach into the answer
    # are left to hash.
    of_both = (
        np.minimum(of_prompt, _minhash(prompt[1 - _SHINGLE_WORDS :] + said)) if said else of_prompt
    )
    return _encode(of_prompt), _encode(of_both)


@lru_cache
def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows that find what is `threshold` alike; they take datasketch a while to work out."""
    lsh = MinHashLSH(
        threshold=min(threshold, 0.99),
        num_perm=PERMUTATIONS,
        weights=(_FALSE_POSITIVES, _FALSE_NEGATIVES),
    )
    return lsh.b, lsh.r


class MinHashIndex:
    """An index of signatures by name, which finds those that are at least `threshold` alike.

    Minima are cut into bands, and what has a band in common with another is compared with it. Kept
    are the minima, and by the check sum of each band who has it: a third of what datasketch's own
    index takes. That two bands may have one check sum costs a comparison.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._minima: dict[str, bytes] = {}
        self._names_by_band: dict[int, str | set[str]] = {}

    def __contains__(self, signature: Signature) -> bool:
        packed = base64.b64decode(signature)
        candidates: set[str] = set()
        for band in self._bands_of(packed):
            found = self._names_by_band.get(band)
            if isinstance(found, str):
                candidates.add(found)
            elif found:
                candidates |= found
        own = _unpack(packed)
        return any(
            np.count_nonzero(own == _unpack(self._minima[name])) / len(own) >= self._threshold
            for name in candidates
        )

    def contains_name(self, name: str) -> bool:
        return name in self._minima

    def add(self, name: str, signature: Signature) -> None:
        """Index a signature; a name that is there already stands for the new one."""
        self.remove(name)
        self._minima[name] = base64.b64decode(signature)
        for band in self._bands_of(self._minima[name]):
            found = self._names_by_band.setdefault(band, name)
            if isinstance(found, set):
                found.add(name)
            elif found != name:
                self._names_by_band[band] = {found, name}

    def remove(self, name: str) -> None:
        """Forget a name; one that is not there is no error."""
        if (packed := self._minima.pop(name, None)) is None:
            return
        for band in self._bands_of(packed):
            found = self._names_by_band.get(band)
            if isinstance(found, set):
                found.discard(name)
            if not found or found == name:
                self._names_by_band.pop(band, None)

    def _bands_of(self, packed: bytes) -> Iterator[int]:
        """Of each band the check sum, begun with its number."""
        bands, rows = _bands(self._threshold)
        size = 4 * rows
        return (crc32(packed[band * size : (band + 1) * size], band) for band in range(bands))


_PERMUTATIONS = MinHash(num_perm=PERMUTATIONS, seed=_SEED, scheme=_SCHEME).permutations
"""Drawn once: they are the same for every signature, and drawing them costs more than using them.
"""


def _new_minhash() -> MinHash:
    return MinHash(
        num_perm=PERMUTATIONS,
        seed=_SEED,
        scheme=_SCHEME,
        hashfunc=crc32,
        permutations=_PERMUTATIONS,
    )


def _minhash(words: list[str]) -> npt.NDArray[np.uint32]:
    runs = {
        " ".join(words[at : at + _SHINGLE_WORDS])
        for at in range(max(1, len(words) - _SHINGLE_WORDS + 1))
    }
    minhash = _new_minhash()
    minhash.update_batch([run.encode() for run in runs])
    found: npt.NDArray[np.uint32] = minhash.hashvalues
    return found


def _encode(minima: npt.NDArray[np.uint32]) -> Signature:
    return base64.b64encode(minima.astype("<u4").tobytes()).decode()


def minhash_values(signature: Signature) -> npt.NDArray[np.uint32]:
    """The numbers of a signature; the share in which two agree is their similarity."""
    return _unpack(base64.b64decode(signature)).astype(np.uint32)


def _unpack(packed: bytes) -> npt.NDArray[np.uint32]:
    return np.frombuffer(packed, dtype="<u4")
