"""The labelled pairs are what their README says, and similarity agrees with them."""

from collections import Counter

import pytest

from tests.dataset.ledger.similarity.__main__ import same_by_differences
from tests.dataset.ledger.similarity.labelled_pairs import SETS, agreement, labelled_pairs

LANGUAGES = {"en", "de", "es", "zh", "ja", "th", "hi"}
MORE_LANGUAGES = LANGUAGES | {"fr", "ru", "ar", "ko"}


@pytest.mark.parametrize(
    ("name", "size", "languages"),
    [("fresh", 144, MORE_LANGUAGES), ("held_out", 126, LANGUAGES), ("tuned", 222, MORE_LANGUAGES)],
)
def test_each_set_holds_both_labels_in_all_languages(
    name: str, size: int, languages: set[str]
) -> None:
    pairs = labelled_pairs(name)
    assert len(pairs) == size
    assert {(pair.label, pair.language) for pair in pairs} == {
        (label, language) for label in ("same", "other") for language in languages
    }
    assert min(Counter(pair.label for pair in pairs).values()) >= 50


def test_every_pair_occurs_once_and_differs() -> None:
    pairs = [pair for name in SETS for pair in labelled_pairs(name)]
    assert len({(pair.first, pair.second) for pair in pairs}) == len(pairs)
    assert all(pair.first != pair.second for pair in pairs)
    assert not any("{" in pair.first.prompt for pair in pairs)


@pytest.mark.parametrize(
    ("name", "precision", "recall"),
    [("fresh", 0.95, 0.84), ("held_out", 0.95, 0.95), ("tuned", 0.95, 0.95)],
)
def test_similarity_agrees_with_the_labels(name: str, precision: float, recall: float) -> None:
    result = agreement(labelled_pairs(name), same_by_differences)
    assert (result.precision >= precision, result.recall >= recall) == (True, True), result.wrong
