"""Filters of candidates, in the order of `FILTERS`. Each drops with a reason of its own."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from services.dataset.building.candidate import Candidate

_LEAST_SECTION = 40
"""Characters of the shortest answer about a whole section."""
_LEAST_TURN = 15
_MAX_QUESTION = 2_000
_ANYTHING = re.compile(r"\w")
_LICENCE = re.compile(
    r"permission is hereby granted, free of charge|licensed under the apache license"
    r"|redistribution and use in source and binary forms|gnu (?:lesser |affero )?general public"
    r" licen[cs]e|all rights reserved|without warranty of any kind",
    re.IGNORECASE,
)

Kept = list[Candidate]


def without_licences(candidates: Iterable[Candidate]) -> Kept:
    """Drop answers that are the text of a common licence."""
    return [each for each in candidates if not _LICENCE.search(each.answer)]


def of_usable_length(candidates: Iterable[Candidate]) -> Kept:
    """Drop answers that are too short to teach anything, and questions that are too long."""
    least = {"section": _LEAST_SECTION, "transcript": _LEAST_TURN}
    return [
        each
        for each in candidates
        if len(each.answer) >= least.get(each.origin, 1)
        and _ANYTHING.search(each.answer)
        and all(len(question) <= _MAX_QUESTION for question in each.questions)
    ]


def unambiguous(candidates: Iterable[Candidate]) -> Kept:
    """Drop all answers to a question that has different ones: each would teach the model to
    contradict the others. Other wordings of the question that have one answer only are kept. An
    answer that is text of a document wins over those of a teacher. Templates are the writer's own
    and are kept.
    """
    kept = list(candidates)
    quoted: defaultdict[str, set[str]] = defaultdict(set)
    taught: defaultdict[str, set[str]] = defaultdict(set)
    for each in kept:
        if each.origin != "template":
            answers = taught if each.origin == "taught" else quoted
            for question in each.questions:
                answers[_folded(question)].add(_answer(each))
    only = {question: next(iter(found)) for question, found in taught.items() if len(found) == 1}
    for question, found in quoted.items():
        only.pop(question, None)
        if len(found) == 1:
            only[question] = next(iter(found))
    left: Kept = []
    for each in kept:
        questions = [
            question
            for question in each.questions
            if each.origin == "template" or only.get(_folded(question)) == _answer(each)
        ]
        if questions:
            left.append(replace(each, question=questions[0], rewordings=tuple(questions[1:])))
    return left


def _answer(candidate: Candidate) -> str:
    return " ".join(candidate.answer.split())


def _folded(question: str) -> str:
    return " ".join(question.lower().split())


FILTERS: Sequence[tuple[str, Callable[[Iterable[Candidate]], Kept]]] = (
    ("licence", without_licences),
    ("length", of_usable_length),
    ("ambiguous", unambiguous),
)
"""The filters of candidates by the name of their reason. Balance and curation follow."""
