"""E-mail and IP addresses."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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
    r"(?:\b(?:v|ver|rev|versions?|releases?|builds?|sections?|chapters?|firmware|driver|upgrade[ds]?"
    r"|update[ds]?|Version|Abschnitt|Kapitel)|§)(?:[\"' ](?:from|to|von|auf))?[\"' .:=(]{0,4}$"
    # Requirements of packages, and products in a user agent (RFC 9110).
    r"|[\w\])][=~<>!^]=$|(?<![/.\w-])[A-Za-z]{1,20}/$"
    # Tags of images, and packages of npm. `name@` alone may be a user's, and `name:` anybody's.
    r"|\.[a-z]{2,10}/[\w./-]{1,16}:$|\bimage: [\w/-]{1,16}:$"
    r"|\b(?:npm|pnpm|yarn|bun) (?:i|add|install) [\w-]{1,12}@$"
    r"|(?:バージョン|版本|버전)[はがを是为:： ]{0,2}$|\bversi[oó]n[ :]{1,2}$|\bversione[ :]{1,2}$"
    r"|\bversão[ :]{1,2}$|\bwersj[aięą][ :]{1,2}$",
    re.IGNORECASE,
)
_RELEASED = re.compile(r" (?:(?:was|is|has been) )?(?:released|published)\b")
_LIST_OF_NUMBERS = re.compile(r"(?:\s?(?:,|-|–|→|->|/|and|or|to|und|oder|bis|auf)\s?){1,2}")
_INDEXED = re.compile(r"[\w)\]]\[$")

# No digit of these says anything about a person.
_PUBLIC_RESOLVERS = frozenset(
    [
        "1.0.0.1",
        "1.1.1.1",
        "8.8.4.4",
        "8.8.8.8",
        "9.9.9.9",
        "149.112.112.112",
        "208.67.220.220",
        "208.67.222.222",
        "2606:4700:4700::1001",
        "2606:4700:4700::1111",
        "2001:4860:4860::8844",
        "2001:4860:4860::8888",
        "2620:fe::fe",
        "2620:fe::9",
    ]
)
# IANA IPv4 Special-Purpose Address Registry, and multicast; without the ranges for documentation
# because examples use them as addresses of people.
_SPECIAL_V4 = tuple(
    map(
        ip_network,
        [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/3",
        ],
    )
)
# Global unicast, unique local, link-local, and IPv4 addresses in IPv6 form. Others are not
# assigned: `1::2` is a slice of a list.
_ASSIGNED_V6 = tuple(
    map(ip_network, ["2000::/3", "fc00::/7", "fe80::/10", "::ffff:0:0/96", "64:ff9b::/96"])
)

_FILE_NAME = re.compile(
    r"\.(?:png|jpe?g|gif|webp|avif|svg|bmp|ico|tiff?|css|scss|less|jsx?|tsx?|mjs|html?|json|xml|ya?ml"
    r"|toml|ini|cfg|conf|txt|pdf|csv|tsv|docx?|xlsx?|pptx?|log|lock|tgz|gz|bz2|xz|7z|rar|jar|whl|exe"
    r"|dll|bin|iso|dmg|mp[34]|wav|woff2?|ttf|java|cpp|hpp|php|rb|go|kt|swift|sql|ipynb)$",
    re.IGNORECASE,
)
_REPOSITORY = re.compile(r":(?!\d+(?:\D|$))[\w~][\w.~-]*/|/")
_REPOSITORY_USERS = frozenset({"git", "hg", "svn", "gitea", "gitlab"})


def find_emails(text: str) -> Iterator[PiiMatch]:
    """Find addresses with a domain of two labels or more, except names of files (`logo@2x.png`) and
    of repositories (`git@example.com:owner/name`).
    """
    if "@" in text:
        for match in _EMAIL.finditer(text):
            value = match.group().casefold()
            if not _FILE_NAME.search(value) and not _is_repository(text, match.end(), value):
                yield PiiMatch(match.start(), match.end(), "email", value)


def find_ips(text: str) -> Iterator[PiiMatch]:
    """Find IPv4 and IPv6 addresses, except special-purpose ones, netmasks, public resolvers, the
    numbers of versions and sections, and indexes of lists.
    """
    if "::" not in text and text.count(":") < 7 and not _MAYBE_V4.search(text):
        return
    number: re.Match[str] | None = None
    for match in _IP.finditer(text):
        start = match.start()
        written = match.group() if match.group().endswith("::") else match.group().removesuffix(":")
        before = max(0, start - 24)
        if (
            _NUMBERED.search(text, before, start)
            or _RELEASED.match(text, match.end())
            or (number and _is_next(number, match))
        ):
            number = match
            continue
        number = None
        if (value := _personal_address(written)) and not _INDEXED.search(text, before, start):
            yield PiiMatch(start, start + len(written), "ip", value)


def _is_next(number: re.Match[str], match: re.Match[str]) -> bool:
    """True for the next one in a list of versions, whose first figure is much the same."""
    if not _LIST_OF_NUMBERS.fullmatch(match.string, number.end(), match.start()):
        return False
    first, second = (each.group().partition(".")[0] for each in (number, match))
    return first.isdecimal() and second.isdecimal() and abs(int(first) - int(second)) <= 1


def _personal_address(written: str) -> str | None:
    """Return the normalized form of an address that may be a person's."""
    try:
        address = ip_address(written)
    except ValueError:
        return None
    # Source code such as `a::b` is a valid address; a real one has a digit.
    if not any(map(str.isdecimal, written)) or address.compressed in _PUBLIC_RESOLVERS:
        return None
    if isinstance(address, IPv6Address):
        is_personal = any(address in network for network in _ASSIGNED_V6) and (
            address.ipv4_mapped is None or _is_personal_v4(address.ipv4_mapped)
        )
    else:
        is_personal = _is_personal_v4(address)
    return address.compressed if is_personal else None


def _is_personal_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _SPECIAL_V4) and int(address) & 0xFFFF != 0


def _is_repository(text: str, end: int, address: str) -> bool:
    user = address.partition("@")[0]
    return user in _REPOSITORY_USERS and _REPOSITORY.match(text, end) is not None
