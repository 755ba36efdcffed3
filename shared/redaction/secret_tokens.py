"""Secrets and tokens with a known format. Each kind has words that all its tokens contain, and a
pattern.
"""

import re
from collections.abc import Iterator

from shared.redaction.pii_match import MASK, PiiMatch

_PRIVATE_KEY = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

# The search for the words first is a cheap filter. Repetitions are bounded, or possessive with a
# start that no earlier attempt can have covered, so the time is linear for every text. If only a
# part of the match is secret, the group `secret` marks it.
_SECRET_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (words, re.compile(pattern))
    for words, pattern in (
        # A key block; if it is cut off, the lines that are present.
        (
            ("PRIVATE KEY",),
            rf"-----BEGIN {_PRIVATE_KEY}(?:(?:[^-{MASK}]++|-(?!----))*+-----END "
            rf"{_PRIVATE_KEY}|(?:\s*+[A-Za-z0-9+/=]{{24,}}+)++)",
        ),
        # Passwords in URLs, authorization headers.
        (("://",), r"""://[^\s/@:"'<>\\]{0,64}:(?P<secret>[^\s/@"'<>\\]{1,256})@"""),
        (
            ("earer ",),
            r"(?<!\w)[Bb]earer\s{1,4}(?=[A-Za-z_.~+/-]{0,64}\d)(?P<secret>[\w.~+/-]{16,}+=*+)",
        ),
        (
            ("asic ",),
            r"(?<!\w)[Aa]uthorization\W{1,4}[Bb]asic\s{1,4}(?P<secret>[A-Za-z0-9+/]{8,}+=*+)",
        ),
        # JSON Web Tokens.
        (("eyJ",), r"(?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]*+"),
        # Amazon Web Services.
        (("AKIA", "ASIA"), r"(?<!\w)A(?:KIA|SIA)[A-Z0-9]{16}(?!\w)"),
        (
            ("secret_access_key", "SECRET_ACCESS_KEY", "SecretAccessKey"),
            r"(?i:secret_?access_?key)\W{1,6}(?P<secret>[A-Za-z0-9/+]{40})(?![\w/+])",
        ),
        # GitHub, GitLab.
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,255}"),
        (("github_pat_",), r"(?<!\w)github_pat_\w{22,255}"),
        (
            ("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-"),
            r"(?<!\w)gl(?:pat|dt|rt|ptt|cbt|soat)-[\w-]{20,255}",
        ),
        # Slack.
        (("xox",), r"(?<!\w)xox[a-z]-[\w-]{10,255}"),
        (("xapp-",), r"(?<!\w)xapp-\d-[\w-]{10,255}"),
        (("hooks.slack.com/services/",), r"hooks\.slack\.com/services/(?P<secret>[\w/]{20,255})"),
        # Google.
        (("AIza",), r"(?<!\w)AIza[\w-]{35}(?![\w-])"),
        (("GOCSPX-",), r"(?<!\w)GOCSPX-[\w-]{28}(?![\w-])"),
        (("ya29.",), r"(?<!\w)ya29\.[\w-]{20,2048}"),
        # OpenAI, Anthropic and similar services; Stripe; Hugging Face, npm, PyPI, SendGrid.
        (("sk-",), r"(?<![\w-])sk-(?=[A-Za-z_-]{0,64}\d)[\w-]{20,255}"),
        (("_live_", "_test_"), r"(?<!\w)[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}"),
        (("whsec_",), r"(?<!\w)whsec_[A-Za-z0-9+/=]{24,255}"),
        (("hf_",), r"(?<!\w)hf_[A-Za-z0-9]{30,255}"),
        (("npm_",), r"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)"),
        (("pypi-",), r"(?<!\w)pypi-AgE[\w-]{50,1024}"),
        (("SG.",), r"(?<!\w)SG\.[\w-]{22}\.[\w-]{43}(?![\w-])"),
    )
)
# Grouped by a character they contain, because many texts contain neither `_` nor `-`.
_MARKERS = {
    sign: tuple(
        word
        for words, _ in _SECRET_PATTERNS
        for word in words
        if next((s for s in "_-" if s in word), "") == sign
    )
    for sign in ("", "_", "-")
}


def find_secrets(text: str) -> Iterator[PiiMatch]:
    """Find private keys, tokens of known services, passwords in URLs and credentials in
    authorization headers.
    """
    if not any(word in text for sign, words in _MARKERS.items() if sign in text for word in words):
        return
    spans: list[tuple[int, int]] = []
    for words, pattern in _SECRET_PATTERNS:
        if any(word in text for word in words):
            group = "secret" if pattern.groups else 0
            spans += (match.span(group) for match in pattern.finditer(text))
    for start, end in _merged(spans):
        yield PiiMatch(start, end, "secret", text[start:end])


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return merged
