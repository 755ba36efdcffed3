"""Detection of local HTTP requests from the connection and the headers."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

_THROUGH_A_PROXY = frozenset(
    {"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"}
)
_THROUGH_A_PROXY_PREFIXES = ("x-forwarded-", "x-original-", "x-envoy-")


def is_local(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from this machine, to this machine, without a proxy that says
    so. A proxy may send nothing of the kind: behind one, require tokens.

    The `Host` header is checked because a foreign page can resolve its own name to 127.0.0.1 (DNS
    rebinding). `headers` has lower-case names.
    """
    if peer is None or any(
        name in _THROUGH_A_PROXY or name.startswith(_THROUGH_A_PROXY_PREFIXES) for name in headers
    ):
        return False
    return _is_loopback(peer) and _is_loopback(_without_port(headers.get("host", "")))


def _without_port(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
