"""Values that a policy allows: an operator's own domains, numbers, and ranges of either."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from shared.redaction.addresses import find_emails
from shared.redaction.payment_numbers import find_cards, find_ibans
from shared.redaction.phones import PhoneFinder
from shared.redaction.pii_match import PiiMatch


class AllowedValues:
    """Tells the matches that stay. A secret never does."""

    def __init__(self, entries: Sequence[str], regions: Sequence[str]) -> None:
        self._networks = tuple(
            network for entry in entries if (network := _network(entry)) is not None
        )
        self._domains = tuple(
            entry.removeprefix("@").casefold()
            for entry in entries
            if not any(find_emails(entry)) and _network(entry) is None and _is_domain(entry)
        )
        self._number_ranges = tuple(
            "+" + "".join(filter(str.isdecimal, entry)) for entry in entries if entry.endswith("*")
        )
        finders = (find_emails, find_ibans, find_cards, PhoneFinder(regions))
        self._values = {
            (match.kind, match.value)
            for entry in entries
            if _network(entry) is None
            for find in finders
            for match in find(entry)
        }

    def __contains__(self, match: object) -> bool:
        if not isinstance(match, PiiMatch):
            return False
        if match.kind == "secret":
            return False
        if match.kind == "ip":
            address = ip_address(match.value)
            return any(address in network for network in self._networks)
        if (match.kind, match.value) in self._values:
            return True
        if match.kind == "phone":
            return match.value.startswith(self._number_ranges)
        if match.kind == "email":
            domain = match.value.rpartition("@")[2]
            return any(domain == own or domain.endswith("." + own) for own in self._domains)
        return False


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        return None


def _is_domain(entry: str) -> bool:
    return any(map(str.isalpha, entry)) and "." in entry and " " not in entry
