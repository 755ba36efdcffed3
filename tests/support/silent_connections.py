"""Clients that open connections and send no whole request."""

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 1100
"""More than a server keeps open."""


@contextmanager
def silent_connections(port: int, sent: bytes = b"", count: int = MANY) -> Iterator[None]:
    """Keep `count` connections open that have sent `sent` and nothing else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 4 * count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * count, hard), hard))
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            if sent:
                opened[-1].sendall(sent)
        yield
    finally:
        for connection in opened:
            connection.close()
