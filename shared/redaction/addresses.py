"""E-mail and IP addresses."""

import re
from collections.abc import Iterator
from ipaddress import ip_address

from shared.redaction.pii_match import MASK, PiiMatch

# Every repetition is bounded (RFC 5321: 64 characters before the @, 63 in a label), so the time is
# linear for every text.
_LABEL = r"\w(?:[\w-]{0,61}\w)?"
_EMAIL = re.compile(
    rf"(?<!\w)\w[\w.%+'-]{{0,63}}+@{_LABEL}(?:\.{_LABEL}){{1,8}}(?<=[^\W\d_]{{2}})(?!\w)"
)

_V4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_V6 = (
    rf"(?=[0-9A-Fa-f]{{0,4}}:[0-9A-Fa-f]{{0,4}}:)"
    rf"(?:[0-9A-Fa-f:]{{2,30}}:{_V4}|[0-9A-Fa-f:]{{3,39}})"
)
_IP = re.compile(rf"(?<![\w:.]){_V6}(?![\w:])|(?<![\w.]){_V4}(?!\w|\.[\d{MASK}])")
_MAYBE_V4 = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]")
_NUMBERED = re.compile(
    r"(?:\bv|\b(?:version|release|build|section|chapter)|§)[ .:=]{0,2}$", re.IGNORECASE
)


def find_emails(text: str) -> Iterator[PiiMatch]:
    """Find addresses with a domain of two labels or more."""
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield PiiMatch(match.start(), match.end(), "email", match.group().casefold())


def find_ips(text: str) -> Iterator[PiiMatch]:
    """Find IPv4 and IPv6 addresses, except loopback and unspecified ones and the numbers of
    versions and sections.
    """
    if "::" not in text and text.count(":") < 7 and not _MAYBE_V4.search(text):
        return
    for match in _IP.finditer(text):
        written = match.group() if match.group().endswith("::") else match.group().removesuffix(":")
        value = _address(written)
        if value and not _NUMBERED.search(text, max(0, match.start() - 12), match.start()):
            yield PiiMatch(match.start(), match.start() + len(written), "ip", value)


def _address(written: str) -> str | None:
    try:
        address = ip_address(written)
    except ValueError:
        return None
    # Source code such as `a::b` is a valid address; a real one has a digit.
    if not any(map(str.isdecimal, written)) or address.is_loopback or address.is_unspecified:
        return None
    return address.compressed
