"""MinHash of a text over shingles of three words.

The Jaccard similarity of two sets of shingles is the expected share of equal minima (Broder 1997,
"On the resemblance and containment of documents"). It compares the topics of examples; near-copies
are found by `services.dataset.ledger.similarity`.
"""

import re
from collections.abc import Iterable
from zlib import crc32

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from shared.events import Message

PERMUTATIONS = 128
_SCHEME = "affine32"
_SEED = 1
_SHINGLE_WORDS = 3
_WORD = re.compile(r"\w+")

Minima = npt.NDArray[np.uint32]


def prompt_words(messages: Iterable[Message]) -> list[str]:
    """Return the words of a prompt, without its system messages."""
    return words_of(prompt_content(messages))


def prompt_content(messages: Iterable[Message]) -> str:
    """Return the content of a prompt without its system messages, which an application sends before
    every prompt and which would make all prompts alike. A prompt of system messages only keeps
    them.
    """
    messages = tuple(messages)
    contents = [message.content for message in messages if message.role != "system"] or [
        message.content for message in messages
    ]
    return " ".join(contents)


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def minima_of(messages: Iterable[Message], answer: str) -> Minima:
    """Return the minima of a prompt with its answer."""
    return minima_of_words(prompt_words(messages) + words_of(answer))


def minima_of_words(words: list[str]) -> Minima:
    """Return the minima of the shingles of some words. Fewer words than a shingle form one."""
    shingles = {
        " ".join(words[at : at + _SHINGLE_WORDS])
        for at in range(max(1, len(words) - _SHINGLE_WORDS + 1))
    }
    minhash = MinHash(
        num_perm=PERMUTATIONS,
        seed=_SEED,
        scheme=_SCHEME,
        hashfunc=crc32,
        permutations=_PERMUTATIONS,
    )
    minhash.update_batch([shingle.encode() for shingle in shingles])
    minima: Minima = minhash.hashvalues.astype(np.uint32)
    return minima


_PERMUTATIONS = MinHash(num_perm=PERMUTATIONS, seed=_SEED, scheme=_SCHEME).permutations
"""Drawn once: the same for every text, and more expensive to draw than to use."""
