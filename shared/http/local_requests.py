"""Who asks over HTTP, as far as the connection and the headers tell."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

_THROUGH_A_PROXY = ("forwarded", "via", "x-forwarded-for", "x-real-ip")


def is_local(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request was made on this machine, to this machine, through nobody else. The `Host`
    matters: a page from elsewhere can have its own name lead to 127.0.0.1. `headers` are found by
    their names in lower case.
    """
    if peer is None or any(name in headers for name in _THROUGH_A_PROXY):
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
