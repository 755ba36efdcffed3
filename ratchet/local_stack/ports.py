"""Ports of this machine."""

import secrets
import socket

from shared.errors import Misconfigured

LOOPBACK = "127.0.0.1"


SERVER_PORTS = range(15_000, 32_000)
"""Ports that no operating system gives to connections going out, which would take one between its
choice and its use.
"""


def free_port() -> int:
    """A port of the loopback interface that nothing listens on at present; drawn, so that two who
    choose at a time seldom agree.
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
    """Raises Misconfigured, naming the way out, when something listens on `port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            advice = (
                "is `ratchet up` running already? Stop what listens there, or choose another "
                f"with {option}"
            )
            raise Misconfigured(f"port {port}, meant for {purpose}, is taken: {advice}") from error
