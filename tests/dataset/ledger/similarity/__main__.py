"""Precision and recall of measures of similarity on the labelled pairs: run `python -m
tests.dataset.ledger.similarity`, with `--wrong` to print the pairs that they get wrong.
"""

import sys
from difflib import SequenceMatcher

from services.dataset.ledger.minhash import minima_of
from services.dataset.ledger.similarity.measure import similarity
from tests.dataset.ledger.similarity.labelled_pairs import (
    SETS,
    PairText,
    agreement,
    labelled_pairs,
)

THRESHOLD = 0.9


def same_by_word_shingles(first: PairText, second: PairText) -> bool:
    """MinHash similarity of the three-word shingles of prompt and answer together."""
    minima = [minima_of(text.messages, text.answer) for text in (first, second)]
    return bool((minima[0] == minima[1]).mean() >= THRESHOLD)


def same_by_difflib(first: PairText, second: PairText) -> bool:
    """Ratio of `difflib` on the characters of prompt and answer together."""
    matcher = SequenceMatcher(
        None, f"{first.prompt}\n{first.answer}", f"{second.prompt}\n{second.answer}", False
    )
    return matcher.ratio() >= THRESHOLD


def same_by_differences(first: PairText, second: PairText) -> bool:
    """Similarity of what differs, of the prompts and of the answers: the measure in use."""
    return (
        min(similarity(first.prompt, second.prompt), similarity(first.answer, second.answer))
        >= THRESHOLD
    )


MEASURES = {
    "word shingles (MinHash)": same_by_word_shingles,
    "difflib ratio": same_by_difflib,
    "differences (in use)": same_by_differences,
}


def main() -> None:
    """Print a table, and the wrong pairs on request."""
    print(f"{'measure':26}{'set':10}{'pairs':>6}{'precision':>11}{'recall':>8}")
    for name, are_same in MEASURES.items():
        for part in SETS:
            pairs = labelled_pairs(part)
            result = agreement(pairs, are_same)
            print(
                f"{name:26}{part:10}{len(pairs):6}{result.precision:11.3f}{result.recall:8.3f}",
                flush=True,
            )
            if "--wrong" in sys.argv:
                for pair in result.wrong:
                    print(f"  {pair.label}: {pair.language} {pair.kind}: {pair.first.prompt!r}")


if __name__ == "__main__":
    main()
