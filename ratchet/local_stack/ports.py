"""Free ports on loopback."""

import secrets
import socket

from shared.errors import Misconfigured

LOOPBACK = "127.0.0.1"

SERVER_PORTS = range(15_000, 32_000)
"""Below the ephemeral ports, one of which an outgoing connection might take between choice and use.
"""


def free_port() -> int:
    """Return a loopback port on which nothing listens now; random, so that concurrent callers
    rarely choose the same one.
    """
    while True:
        port = secrets.choice(SERVER_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


def require_free(port: int, purpose: str, option: str) -> None:
    """Check that nothing listens on `port`. Raises Misconfigured naming the option to change it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            advice = (
                "is `ratchet up` already running? Stop the process that uses it, or choose another "
                f"with {option}"
            )
            raise Misconfigured(f"port {port} for {purpose} is taken: {advice}") from error
