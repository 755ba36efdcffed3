"""Generated values of the slots in the corpus: personal data and secrets, which are labelled, and
look-alikes, which are not.

Telephone numbers are of ranges reserved for fiction, addresses have the domains of RFC 2606, card
numbers and IBANs have valid check digits.
"""

import uuid
from collections.abc import Callable, Mapping
from random import Random

LABELS: Mapping[str, str] = {
    "email": "email",
    "phone": "phone",
    "intphone": "phone",
    "card": "card",
    "iban": "iban",
    "ip": "ip",
    "secret": "secret",
    "awskey": "secret",
    "password": "secret",
}
"""The kind of personal data of a slot. Other slots are look-alikes."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_WORD = _LETTERS + _LETTERS.upper() + _DIGITS
_NAMES = ("ada", "bruno", "chidi", "dana", "emre", "freya", "goran", "hana", "ines", "jonas")
_SURNAMES = ("lindqvist", "okafor", "petrov", "meyer", "dubois", "rossi", "tanaka", "novak")


def _take(random: Random, alphabet: str, length: int) -> str:
    return "".join(random.choice(alphabet) for _ in range(length))


def email(random: Random) -> str:
    name, surname = random.choice(_NAMES), random.choice(_SURNAMES)
    local = random.choice(
        (f"{name}.{surname}", f"{name[0]}{surname}", f"{name}_{surname}", f"{name}+shop", name)
    )
    host = random.choice(("", "", "mail.", "post."))
    return f"{local}@{host}example.{random.choice(('com', 'org', 'net'))}"


def phone(random: Random) -> str:
    """A number of the United States, Great Britain, Germany or France, in a national or the
    international form.
    """
    line = random.randrange(100, 200)
    area = random.choice(("202", "212", "312", "415", "617"))
    drama = random.randrange(1000)
    german = f"23125{random.randrange(1000):03}"
    french = f"{random.randrange(100):02} {random.randrange(100):02}"
    return random.choice(
        (
            f"({area}) 555-0{line}",
            f"+1 {area}-555-0{line}",
            f"{area}-555-0{line}",
            f"020 7946 0{drama:03}",
            f"+44 20 7946 0{drama:03}",
            f"030 {german}",
            f"+49 30 {german}",
            f"01 99 00 {french}",
            f"+33 1 99 00 {french}",
        )
    )


def international_phone(random: Random) -> str:
    return random.choice(
        (
            f"+44 20 7946 0{random.randrange(1000):03}",
            f"+49 30 23125{random.randrange(1000):03}",
            f"+1 212-555-0{random.randrange(100, 200)}",
        )
    )


def card(random: Random) -> str:
    """A number with a test prefix, together or in groups."""
    prefix = random.choice(("400000", "424242", "555555", "510510"))
    digits = prefix + _take(random, _DIGITS, 9)
    digits += str(-_luhn(digits + "0") % 10)
    separator = random.choice(("", " ", "-", " "))
    return separator.join(digits[start : start + 4] for start in range(0, 16, 4))


def _luhn(digits: str) -> int:
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled)


def iban(random: Random) -> str:
    country, account = random.choice(
        (
            ("DE", _take(random, _DIGITS, 18)),
            ("NL", f"ABNA{_take(random, _DIGITS, 10)}"),
            ("ES", _take(random, _DIGITS, 20)),
            ("FR", _take(random, _DIGITS, 23)),
            ("PL", _take(random, _DIGITS, 24)),
            ("GB", f"NWBK{_take(random, _DIGITS, 14)}"),
        )
    )
    number = int("".join(str(int(letter, 36)) for letter in f"{account}{country}00"))
    compact = f"{country}{98 - number % 97:02}{account}"
    if random.random() < 0.4:
        return compact
    return " ".join(compact[start : start + 4] for start in range(0, len(compact), 4))


def ip(random: Random) -> str:
    if random.random() < 0.25:
        groups = ":".join(f"{random.randrange(1, 65536):x}" for _ in range(6))
        return f"2a02:{random.randrange(256, 4096):x}:{groups}"
    first = random.choice((81, 84, 91, 93, 178, 188, 213))
    return ".".join(map(str, (first, *(random.randrange(1, 255) for _ in range(3)))))


def secret(random: Random) -> str:
    """A key in the form of a known issuer."""
    return random.choice(
        (
            f"ghp_{_take(random, _WORD, 36)}",
            f"glpat-{_take(random, _WORD, 20)}",
            f"sk_live_{_take(random, _WORD, 24)}",
            f"sk-ant-api03-{_take(random, _WORD, 93)}AA",
            f"AIza{_take(random, _WORD, 35)}",
            f"npm_{_take(random, _WORD, 36)}",
            f"hf_{_take(random, _LETTERS + _LETTERS.upper(), 34)}",
            f"gsk_{_take(random, _WORD, 52)}",
            f"SG.{_take(random, _WORD, 22)}.{_take(random, _WORD, 43)}",
            f"xoxb-{_take(random, _DIGITS, 12)}-{_take(random, _WORD, 24)}",
            f"dapi{_take(random, 'abcdef' + _DIGITS, 32)}",
        )
    )


def aws_key(random: Random) -> str:
    return f"AKIA{_take(random, _LETTERS.upper() + '234567', 16)}"


def password(random: Random) -> str:
    return f"{_take(random, _LETTERS, 5)}{_take(random, _DIGITS, 3)}{_take(random, _WORD, 6)}"


def version(random: Random) -> str:
    """A version number of three or four parts."""
    return ".".join(str(random.randrange(40)) for _ in range(random.choice((3, 3, 4))))


VALUES: Mapping[str, Callable[[Random], str]] = {
    "email": email,
    "phone": phone,
    "intphone": international_phone,
    "card": card,
    "iban": iban,
    "ip": ip,
    "secret": secret,
    "awskey": aws_key,
    "password": password,
    "number": lambda random: str(random.randrange(1, 99999)),
    "digits10": lambda random: str(random.randrange(1_000_000_000, 9_999_999_999)),
    "version": lambda random: ".".join(
        str(random.randrange(40)) for _ in range(random.choice((3, 4)))
    ),
    "hash": lambda random: _take(random, "abcdef" + _DIGITS, 40),
    "uuid": lambda random: str(uuid.UUID(int=random.getrandbits(128), version=4)),
    "serial": lambda random: f"{_take(random, _LETTERS.upper(), 2)}{_take(random, _DIGITS, 9)}",
}
