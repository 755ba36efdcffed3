"""Redaction policy of a model file: personal data that is removed from feedback before it is
stored.
"""

import re
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from shared.events import FrozenModel

PersonalDataKind = Literal["email", "phone", "card", "iban", "ip", "secret"]
PERSONAL_DATA_KINDS: tuple[PersonalDataKind, ...] = (
    "email",
    "phone",
    "card",
    "iban",
    "ip",
    "secret",
)

# Every region with telephone numbers in the library `phonenumbers`. Listed here so
# that every process can check a model file without that library.
REGIONS = frozenset(
    re.findall(
        "[A-Z]{2}",
        "AC AD AE AF AG AI AL AM AO AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN "
        "BO BQ BR BS BT BW BY BZ CA CC CD CF CG CH CI "
        "CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK "
        "FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP "
        "GQ GR GT GU GW GY HK HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH "
        "KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS "
        "LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA "
        "NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF "
        "PG PH PK PL PM PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM "
        "SN SO SR SS ST SV SX SY SZ TA TC TD TG TH TJ "
        "TK TL TM TN TO TR TT TV TW TZ UA UG US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW",
    )
)


def _validate_region(region: str) -> str:
    if region not in REGIONS:
        raise ValueError(
            "expected a two-letter country code (ISO 3166-1) in capitals, such as US or GB"
        )
    return region


Region = Annotated[str, AfterValidator(_validate_region)]


_DOMAIN = re.compile(r"@?(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,63}")
_ADDRESS = re.compile(r"[^\s@]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,63}")
_RANGE = re.compile(r"[\d.]+/\d+")
_NUMBER = re.compile(r"\+?[\d ()/.-]{4,30}|\+[\d ()/.-]{3,30}\*|[A-Za-z]{2}\d\d[A-Za-z\d ]{8,40}")


def _validate_allowed(entry: str) -> str:
    entry = entry.strip()
    shapes = (_DOMAIN, _ADDRESS) if _RANGE.fullmatch(entry) else (_DOMAIN, _ADDRESS, _NUMBER)
    if any(shape.fullmatch(entry) for shape in shapes) or _is_network(entry):
        return entry
    raise ValueError(
        "expected a domain (example.org), an e-mail address, a telephone number, card or IBAN, the "
        "beginning of international numbers (+49 30 1234*), or IP addresses (203.0.113.0/24)"
    )


def _is_network(entry: str) -> bool:
    try:
        ip_network(entry, strict=False)
    except ValueError:
        return False
    return True


AllowedValue = Annotated[str, AfterValidator(_validate_allowed)]


class RedactionPolicy(FrozenModel):
    """Kinds of personal data that are replaced by placeholders."""

    kinds: Annotated[
        tuple[PersonalDataKind, ...], Field(description="an empty list turns redaction off")
    ] = PERSONAL_DATA_KINDS
    regions: Annotated[
        tuple[Region, ...],
        Field(
            description="regions of telephone numbers without a leading +, in order of precedence"
        ),
    ] = ("US", "GB", "DE", "FR")
    names: Annotated[
        bool, Field(description="also redact people and places; needs the extra `presidio`")
    ] = False
    allow: Annotated[
        tuple[AllowedValue, ...],
        Field(
            max_length=1000,
            description="values that stay: own domains and e-mail addresses, numbers, +49 30 1234* "
            "for the numbers that begin so, ranges of IP addresses",
            # Stored digests and policies of files without the key stay the same.
            exclude_if=lambda values: not values,
        ),
    ] = ()
    train_new_placeholders: Annotated[
        bool,
        Field(
            description="also train on answers with a placeholder that their prompt does not have",
            exclude_if=lambda is_set: not is_set,
        ),
    ] = False

    @property
    def summary(self) -> str:
        """The policy in one line."""
        kinds = [*self.kinds, *(["names"] if self.names else [])]
        regions = f" (phones of {', '.join(self.regions)})" if "phone" in self.kinds else ""
        allowed = f", except {len(self.allow)} allowed" if self.allow else ""
        return f"redacts {', '.join(kinds) or 'nothing'}{regions}{allowed}"
