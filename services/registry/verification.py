"""Whether what is served answers as what was evaluated. Pure.

The evaluation's greedy answers are compared token by token. Rounding differs between implementations, so at a near tie another
token may win; there the comparison of that answer ends. Everything before must be the same, and about as likely.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.events import Digest, Probe

NEAR_TIE = 0.25  # nats: the lead of a token over the runner-up, below which another token may win
TOLERANCE = 0.1  # nats: mean difference of log-probabilities over the tokens agreed on


@dataclass(frozen=True, slots=True)
class ServedToken:
    """One token of a served answer; the token that ends an answer has no text."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What verification found. `reasons` says why not, and is empty when `passed`."""

    passed: bool
    reasons: tuple[str, ...]
    probes: int
    tokens: int
    mean_difference: float | None


def judge(expected: Digest, found: Digest, probes: Sequence[Probe], answers: Sequence[Sequence[ServedToken]]) -> Finding:
    """Compare digests, and each probe with the answer that was served for it (`answers` in the order of `probes`)."""
    reasons = [] if expected == found else [f"the served file has digest {found}, the merged one {expected}"]
    if len(answers) != len(probes):
        reasons.append(f"{len(answers)} of {len(probes)} probes were answered")
    differences: list[float] = []
    for number, (probe, answer) in enumerate(zip(probes, answers, strict=False), start=1):
        agreed, reason = _agree(probe, answer)
        differences += agreed
        if reason:
            reasons.append(f"probe {number}: {reason}")
    mean = sum(differences) / len(differences) if differences else None
    if mean is not None and mean > TOLERANCE:
        reasons.append(f"log-probabilities differ by {mean:.3f} nats on average, more than {TOLERANCE}")
    if mean is None and any(probe.answer for probe in probes):
        reasons.append("no token of any probe was agreed on")
    return Finding(not reasons, tuple(reasons), len(probes), len(differences), mean)


def _agree(probe: Probe, answer: Sequence[ServedToken]) -> tuple[list[float], str]:
    """The differences of log-probability over the tokens agreed on, and why the answer is another, empty if it is not."""
    differences: list[float] = []
    for place, token in enumerate(probe.answer):
        if place == len(answer):
            return differences, "" if token.lead < NEAR_TIE else f"the answer ends before token {place + 1}, {token.text!r}"
        served = answer[place]
        last = place + 1 == len(probe.answer)
        if served.text != token.text and not (last and _ends(token.text, served.text)):
            if token.lead < NEAR_TIE:
                return differences, ""
            return differences, f"token {place + 1} is {served.text!r}, expected {token.text!r} with a lead of {token.lead:.2f} nats"
        differences.append(abs(served.logprob - token.logprob))
    return differences, ""


def _ends(expected: str, served: str) -> bool:
    """Whether both are the token that ends an answer, which a server shows without its text."""
    return served == "" and expected.startswith("<") and expected.endswith(">")
