"""Ports of this machine."""

import socket

from shared.errors import Misconfigured

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port of the loopback interface that nothing listens on at present."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, purpose: str, option: str) -> None:
    """Raises Misconfigured, naming the way out, when something listens on `port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            advice = f"is `ratchet up` running already? Stop what listens there, or choose another with {option}"
            raise Misconfigured(f"port {port}, meant for {purpose}, is taken: {advice}") from error
