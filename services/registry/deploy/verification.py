"""Verification that a served version answers as its evaluation did. Pure.

The evaluation's greedy answers are compared token by token. Rounding differs between
implementations, so at a near tie another token may win; the comparison of that answer ends there.
All tokens before must be equal, and about as likely where the server returns log-probabilities.
A token must also not take many times as long as one of the version that is served now.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from shared.events import Digest, Probe

NEAR_TIE = 0.25
"""Nats: with a smaller lead over the runner-up, another token may win."""

TOLERANCE = 0.1
"""Nats: largest mean difference of the log-probabilities of equal tokens."""

# Text that tokenizers do not split in pre-tokenization, so that it may be a single token.
_SINGLE_TOKEN = re.compile(r"\s?(\w+|[^\w\s]+)|\s+")
_PART_OF_A_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True)
class ServedToken:
    """One token of a served answer; the end-of-turn token has an empty text."""

    text: str
    logprob: float


TIMED_PROBES = 2
"""Number of probes that are timed. The version served now answers them as well, in between its
users' requests.
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """Duration of an answer, prompt processing included, and its number of tokens."""

    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """Result of a verification. `reasons` lists what failed; it is empty if `passed`.

    The times per token are those of the version and of the version served before it, for the same
    probes; None if not measured.
    """

    passed: bool
    reasons: tuple[str, ...]
    probes: int
    tokens: int
    mean_difference: float | None
    seconds_per_token: float | None = None
    seconds_per_token_before: float | None = None

    def with_failure(self, reason: str) -> "VerificationResult":
        """Return a copy that failed for one more reason."""
        return replace(self, passed=False, reasons=(*self.reasons, reason))

    def with_timings(self, own: Sequence[Timing], before: Sequence[Timing]) -> "VerificationResult":
        """Return a copy with the times per token. The fastest answer counts: the first one waits
        for the file to be loaded into memory, and any may wait for other work of the machine.
        """
        return replace(
            self,
            seconds_per_token=_fastest_seconds_per_token(own),
            seconds_per_token_before=_fastest_seconds_per_token(before),
        )

    def check_slowdown(self, times: float) -> "VerificationResult":
        """Return self, or a failed copy if a token takes more than `times` as long as one of the
        version served now.
        """
        own, before = self.seconds_per_token, self.seconds_per_token_before
        if own is None or before is None or own <= times * before:
            return self
        return self.with_failure(
            f"a token takes {own:.3f} s, {before:.3f} s with the version served now: more than "
            f"{times:g} times as long (RATCHET_SLOWDOWN)"
        )


def verify_tokens(
    expected: Digest,
    actual: Digest,
    probes: Sequence[Probe],
    answers: Sequence[Sequence[ServedToken]],
) -> VerificationResult:
    """Compare the digests, and each probe with its served answer (`answers` in the order of
    `probes`).
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
        reasons.append("no token of any probe matches")
    return VerificationResult(not reasons, tuple(reasons), len(probes), len(differences), mean)


def verify_texts(
    expected: Digest, actual: Digest, probes: Sequence[Probe], answers: Sequence[str]
) -> VerificationResult:
    """Compare as `verify_tokens`, for a server that returns only the text of its answers.

    Where a text diverges from the evaluation's, the lead of the token there counts, and that of an
    earlier token which the server may have written as a longer one.
    """
    reasons = _mismatches(expected, actual, len(probes), len(answers))
    tokens = 0
    for number, (probe, answer) in enumerate(zip(probes, answers, strict=False), start=1):
        agreed, reason = _compare_text(probe, answer)
        tokens += agreed
        if reason:
            reasons.append(f"probe {number}: {reason}")
    if not tokens and any(probe.answer for probe in probes):
        reasons.append("no token of any probe matches")
    return VerificationResult(not reasons, tuple(reasons), len(probes), tokens, None)


def _fastest_seconds_per_token(timings: Sequence[Timing]) -> float | None:
    return min(
        (timing.seconds / timing.tokens for timing in timings if timing.tokens), default=None
    )


def _mismatches(expected: Digest, actual: Digest, probes: int, answers: int) -> list[str]:
    """List the reasons against a version that need no comparison of answers."""
    reasons = (
        []
        if expected == actual
        else [f"the served file has digest {actual}, the merged one {expected}"]
    )
    if answers != probes:
        reasons.append(f"{answers} of {probes} probes were answered")
    return reasons


def _compare_tokens(probe: Probe, answer: Sequence[ServedToken]) -> tuple[list[float], str]:
    """Return the log-probability differences of the equal tokens, and the reason for which the
    answer differs, empty if it does not.
    """
    differences: list[float] = []
    for index, token in enumerate(probe.answer):
        if index == len(answer):
            return (
                differences,
                ""
                if token.lead < NEAR_TIE
                else f"the answer ends before token {index + 1}, {token.text!r}",
            )
        served = answer[index]
        last = index + 1 == len(probe.answer)
        if served.text != token.text and not (last and _is_end_token(token.text, served.text)):
            if token.lead < NEAR_TIE:
                return differences, ""
            return (
                differences,
                f"token {index + 1} is {served.text!r}, expected {token.text!r} with a lead "
                f"of {token.lead:.2f} nats",
            )
        differences.append(abs(served.logprob - token.logprob))
    return differences, ""


def _compare_text(probe: Probe, answer: str) -> tuple[int, str]:
    """Return the number of tokens the text agrees on, and the reason for which it differs, empty
    if it does not.
    """
    tokens = list(probe.answer)
    # A token that is part of a character has no text of its own: nothing can be compared from
    # there on.
    readable = next(
        (index for index, token in enumerate(tokens) if _PART_OF_A_CHARACTER in token.text),
        len(tokens),
    )
    complete = readable == len(tokens) > 0 and _is_end_token(tokens[-1].text, "")
    texts = [token.text for token in tokens[: readable - complete]]
    starts = list(accumulate(map(len, texts), initial=0))
    common = _common_prefix_length("".join(texts), answer)
    if common == starts[-1] and (not complete or common == len(answer)):
        return readable, ""
    index = next(number for number, end in enumerate([*starts[1:], common + 1]) if end > common)
    for earlier in range(index + 1):
        written = answer[starts[earlier] : common + 1]
        longer = len(written) > len(tokens[earlier].text) and _SINGLE_TOKEN.fullmatch(written)
        if (earlier == index or longer) and tokens[earlier].lead < NEAR_TIE:
            return earlier, ""
    token = tokens[index]
    served = answer[starts[index] : starts[index] + len(token.text)]
    return (
        index,
        f"token {index + 1} is {served!r}, expected {token.text!r} with a lead of "
        f"{token.lead:.2f} nats",
    )


def _common_prefix_length(first: str, second: str) -> int:
    return next(
        (index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


def _is_end_token(expected: str, served: str) -> bool:
    """True if both are the end-of-turn token, which a server returns without its text."""
    return served == "" and expected.startswith("<") and expected.endswith(">")
