"""Verification: served answers equal the evaluation's, except at near ties."""

from services.registry.deploy.verification import (
    NEAR_TIE,
    TOLERANCE,
    ServedToken,
    Timing,
    VerificationResult,
    verify_texts,
    verify_tokens,
)
from shared.events import Message, Probe, ProbeToken
from shared.identity import digest_of

RIGHT, WRONG = digest_of(b"right"), digest_of(b"wrong")


def _probe(*tokens: tuple[str, float, float]) -> Probe:
    answer = tuple(
        ProbeToken(text=text, logprob=logprob, lead=lead) for text, logprob, lead in tokens
    )
    return Probe(messages=(Message(role="user", content="?"),), answer=answer)


PROBE = _probe(("The", -0.5, 2.0), (" sea", -1.0, 0.1), (" is", -0.2, 3.0))


def _judge(*answers: tuple[tuple[str, float], ...]) -> VerificationResult:
    return verify_tokens(
        RIGHT,
        RIGHT,
        [PROBE] * len(answers),
        [[ServedToken(*token) for token in answer] for answer in answers],
    )


def test_same_answer_passes() -> None:
    result = _judge((("The", -0.51), (" sea", -1.02), (" is", -0.2)))
    assert result.passed
    assert result.tokens == 3
    assert result.mean_difference is not None
    assert abs(result.mean_difference - 0.01) < 1e-9


def test_other_token_at_a_near_tie_ends_the_comparison() -> None:
    result = _judge((("The", -0.5), (" lake", -1.1), (" was", -9.0)))
    assert result.passed
    assert result.tokens == 1


def test_other_token_with_a_clear_lead_fails_and_is_named() -> None:
    result = _judge((("A", -0.5), (" sea", -1.0), (" is", -0.2)))
    assert not result.passed
    assert "'A'" in result.reasons[0]
    assert "2.00" in result.reasons[0]


def test_lead_must_be_below_the_bound() -> None:
    probe = _probe(("a", -0.5, NEAR_TIE), ("b", -0.5, 2.0))
    assert not verify_tokens(RIGHT, RIGHT, [probe], [[ServedToken("x", -0.5)]]).passed


def test_same_tokens_with_lower_likelihood_fail() -> None:
    result = _judge((("The", -0.5 - 3.1 * TOLERANCE), (" sea", -1.0), (" is", -0.2)))
    assert not result.passed
    assert "nats on average" in result.reasons[0]


def test_other_file_fails_whatever_its_answers() -> None:
    answer = [ServedToken("The", -0.5), ServedToken(" sea", -1.0), ServedToken(" is", -0.2)]
    assert not verify_tokens(RIGHT, WRONG, [PROBE], [answer]).passed


def test_every_probe_is_verified() -> None:
    good = (("The", -0.5), (" sea", -1.0), (" is", -0.2))
    assert not _judge(good, (("Bad", -0.5),)).passed
    assert not verify_tokens(
        RIGHT, RIGHT, [PROBE, PROBE], [[ServedToken(*token) for token in good]]
    ).passed


def test_answer_that_ends_early_fails() -> None:
    assert not _judge((("The", -0.5), (" sea", -1.0))).passed
    assert not _judge(()).passed


def test_end_token_has_no_text_on_the_wire() -> None:
    probe = _probe(("Hi", -0.5, 2.0), ("<|im_end|>", -0.1, 2.0))
    assert verify_tokens(
        RIGHT, RIGHT, [probe], [[ServedToken("Hi", -0.5), ServedToken("", -0.1)]]
    ).passed


def test_answers_without_any_common_token_fail() -> None:
    probe = _probe(("a", -0.5, 0.0))
    assert not verify_tokens(RIGHT, RIGHT, [probe], [[ServedToken("b", -0.5)]]).passed


def _judge_text(answer: str, probe: Probe = PROBE) -> VerificationResult:
    return verify_texts(RIGHT, RIGHT, [probe], [answer])


def test_same_text_passes_with_or_without_more_text() -> None:
    for answer in ("The sea is", "The sea is wide"):
        result = _judge_text(answer)
        assert result.passed
        assert result.tokens == 3


def test_text_diverging_at_a_near_tie_ends_the_comparison() -> None:
    result = _judge_text("The lake was")
    assert result.passed
    assert result.tokens == 1


def test_near_tie_allows_a_longer_token_but_not_the_next_word() -> None:
    """The tie is at ` sea`, and ` seas` may be another token; ` sea was` has ` sea` again, and then
    another token.
    """
    assert _judge_text("The seas are").passed
    result = _judge_text("The sea was")
    assert not result.passed
    assert "token 3 is ' wa', expected ' is' with a lead of 3.00 nats" in result.reasons[0]


def test_text_that_is_too_short_or_too_long_fails() -> None:
    assert not _judge_text("The sea").passed
    assert not _judge_text("").passed
    ended = _probe(("Hi", -0.5, 2.0), ("<|im_end|>", -0.1, 2.0))
    assert _judge_text("Hi", ended).tokens == 2
    assert not _judge_text("Hi there", ended).passed
    assert _judge_text("Hi there", _probe(("Hi", -0.5, 2.0), ("<|im_end|>", -0.1, 0.1))).passed


def test_parts_of_characters_are_not_compared() -> None:
    probe = _probe(
        ("A", -0.5, 2.0), ("\ufffd", -0.5, 2.0), ("\ufffd", -0.5, 2.0), ("<|im_end|>", -0.1, 2.0)
    )
    assert _judge_text("A😀", probe).tokens == 1
    assert not _judge_text("B😀", probe).passed


def test_texts_are_verified_with_their_file_and_completely() -> None:
    assert not verify_texts(RIGHT, WRONG, [PROBE], ["The sea is"]).passed
    assert not verify_texts(RIGHT, RIGHT, [PROBE, PROBE], ["The sea is"]).passed
    assert not _judge_text("b", _probe(("a", -0.5, 0.0))).passed


PASSED = VerificationResult(True, (), 2, 6, 0.0)


def test_time_per_token_is_that_of_the_fastest_answer() -> None:
    result = PASSED.with_timings(
        [Timing(9.0, 3), Timing(0.4, 4), Timing(0.1, 0)], [Timing(0.5, 10)]
    )
    assert (result.seconds_per_token, result.seconds_per_token_before) == (0.1, 0.05)


def test_too_slow_version_is_refused_with_both_times() -> None:
    result = PASSED.with_timings([Timing(6.1, 10)], [Timing(1.0, 10)])
    assert result.check_slowdown(6.2).passed
    refused = result.check_slowdown(6.0)
    assert not refused.passed
    assert refused.reasons == (
        "a token takes 0.610 s, 0.100 s with the version served now: more than 6 times as long "
        "(RATCHET_SLOWDOWN)",
    )
    assert refused.seconds_per_token == 0.61


def test_without_a_reference_time_no_version_is_too_slow() -> None:
    assert PASSED.with_timings([Timing(99.0, 1)], []).check_slowdown(1).passed
    assert PASSED.with_timings([], [Timing(1.0, 1)]).check_slowdown(1).passed
