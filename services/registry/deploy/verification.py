"""Whether what is served answers as what was evaluated. Pure.

The evaluation's greedy answers are compared token by token. Rounding differs between
implementations, so at a near tie another token may win; there the comparison of that answer ends.
Everything before must be the same, and about as likely, where the server says how likely. And it
must not take many times as long as what answers now.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from shared.events import Digest, Probe

NEAR_TIE = 0.25  # nats: the lead of a token over the runner-up, below which another token may win
TOLERANCE = 0.1  # nats: mean difference of log-probabilities over the tokens agreed on

_SINGLE_TOKEN = re.compile(
    r"\s?(\w+|[^\w\s]+)|\s+"
)  # what tokenizers do not divide beforehand, and may make one token of
_PART_OF_A_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True)
class ServedToken:
    """One token of a served answer; the token that ends an answer has no text."""

    text: str
    logprob: float


TIMED_PROBES = 2
"""Of how many probes the time is compared. What answers now is asked them as well, beside those
whom it serves.
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long an answer took, its prompt included, and how many tokens it has."""

    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What verification found. `reasons` says why not, and is empty when `passed`. The times are of
    the version and of what answered before it, to the same probes; None where nothing tells them.
    """

    passed: bool
    reasons: tuple[str, ...]
    probes: int
    tokens: int
    mean_difference: float | None
    seconds_per_token: float | None = None
    seconds_per_token_before: float | None = None

    def with_failure(self, reason: str) -> "VerificationResult":
        """The same with one more reason against."""
        return replace(self, passed=False, reasons=(*self.reasons, reason))

    def with_timings(self, own: Sequence[Timing], before: Sequence[Timing]) -> "VerificationResult":
        """The same with how long answers took. The quickest answer counts: a first one waits for a
        file to come into memory, and others for what else the machine does.
        """
        return replace(
            self,
            seconds_per_token=_fastest_seconds_per_token(own),
            seconds_per_token_before=_fastest_seconds_per_token(before),
        )

    def check_slowdown(self, times: float) -> "VerificationResult":
        """The same; failing when a token takes more than `times` as long as of what answers now."""
        own, before = self.seconds_per_token, self.seconds_per_token_before
        if own is None or before is None or own <= times * before:
            return self
        return self.with_failure(
            f"a token takes {own:.3f} s, and {before:.3f} s of what answers now: more than "
            f"{times:g} times as long (RATCHET_SLOWDOWN)"
        )


def verify_tokens(
    expected: Digest,
    actual: Digest,
    probes: Sequence[Probe],
    answers: Sequence[Sequence[ServedToken]],
) -> VerificationResult:
    """Compare digests, and each probe with the answer that was served for it (`answers` in the
    order of `probes`).
    """
    reasons = _mismatches(expected, actual, len(probes), len(answers))
    differences: list[float] = []
    for number, (probe, answer) in enumerate(zip(probes, answers, strict=False), start=1):
        agreed, reason = _compare_tokens(probe, answer)
        differences += agreed
        if reason:
            reasons.append(f"probe {number}: {reason}")
    mean = sum(differences) / len(differences) if differences else None
    if mean is not None and mean > TOLERANCE:
        reasons.append(
            f"log-probabilities differ by {mean:.3f} nats on average, more than {TOLERANCE}"
        )
    if mean is None and any(probe.answer for probe in probes):
        reasons.append("no token of any probe was agreed on")
    return VerificationResult(not reasons, tuple(reasons), len(probes), len(differences), mean)


def verify_texts(
    expected: Digest, actual: Digest, probes: Sequence[Probe], answers: Sequence[str]
) -> VerificationResult:
    """The same for a server that shows the text of its answers alone. Where a text parts from the
    evaluation's, the lead counts of the token there, and of one before it that the server may have
    written as a longer token.
    """
    reasons = _mismatches(expected, actual, len(probes), len(answers))
    tokens = 0
    for number, (probe, answer) in enumerate(zip(probes, answers, strict=False), start=1):
        agreed, reason = _compare_text(probe, answer)
        tokens += agreed
        if reason:
            reasons.append(f"probe {number}: {reason}")
    if not tokens and any(probe.answer for probe in probes):
        reasons.append("no token of any probe was agreed on")
    return VerificationResult(not reasons, tuple(reasons), len(probes), tokens, None)


def _fastest_seconds_per_token(timings: Sequence[Timing]) -> float | None:
    return min(
        (timing.seconds / timing.tokens for timing in timings if timing.tokens), default=None
    )


def _mismatches(expected: Digest, actual: Digest, probes: int, answers: int) -> list[str]:
    reasons = (
        []
        if expected == actual
        else [f"the served file has digest {actual}, the merged one {expected}"]
    )
    if answers != probes:
        reasons.append(f"{answers} of {probes} probes were answered")
    return reasons


def _compare_tokens(probe: Probe, answer: Sequence[ServedToken]) -> tuple[list[float], str]:
    """The differences of log-probability over the tokens agreed on, and why the answer is another,
    empty if it is not.
    """
    differences: list[float] = []
    for place, token in enumerate(probe.answer):
        if place == len(answer):
            return (
                differences,
                ""
                if token.lead < NEAR_TIE
                else f"the answer ends before token {place + 1}, {token.text!r}",
            )
        served = answer[place]
        last = place + 1 == len(probe.answer)
        if served.text != token.text and not (last and _is_end_token(token.text, served.text)):
            if token.lead < NEAR_TIE:
                return differences, ""
            return (
                differences,
                f"token {place + 1} is {served.text!r}, expected {token.text!r} with a lead "
                f"of {token.lead:.2f} nats",
            )
        differences.append(abs(served.logprob - token.logprob))
    return differences, ""


def _compare_text(probe: Probe, answer: str) -> tuple[int, str]:
    """How many tokens the text agrees on, and why the answer is another, empty if it is not."""
    tokens = list(probe.answer)
    # A token that is part of a character has no text of its own: what comes from there on cannot be
    # compared.
    readable = next(
        (place for place, token in enumerate(tokens) if _PART_OF_A_CHARACTER in token.text),
        len(tokens),
    )
    complete = readable == len(tokens) > 0 and _is_end_token(tokens[-1].text, "")
    texts = [token.text for token in tokens[: readable - complete]]
    starts = list(accumulate(map(len, texts), initial=0))
    parted = _common_prefix_length("".join(texts), answer)
    if parted == starts[-1] and (not complete or parted == len(answer)):
        return readable, ""
    place = next(number for number, end in enumerate([*starts[1:], parted + 1]) if end > parted)
    for earlier in range(place + 1):
        written = answer[starts[earlier] : parted + 1]
        longer = len(written) > len(tokens[earlier].text) and _SINGLE_TOKEN.fullmatch(written)
        if (earlier == place or longer) and tokens[earlier].lead < NEAR_TIE:
            return earlier, ""
    token = tokens[place]
    there = answer[starts[place] : starts[place] + len(token.text)]
    return (
        place,
        f"token {place + 1} is {there!r}, expected {token.text!r} with a lead of "
        f"{token.lead:.2f} nats",
    )


def _common_prefix_length(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _is_end_token(expected: str, served: str) -> bool:
    """Whether both are the token that ends an answer, which a server shows without its text."""
    return served == "" and expected.startswith("<") and expected.endswith(">")
