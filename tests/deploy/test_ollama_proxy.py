"""The proxy in front of Ollama allows inference requests and denies requests that create, copy,
pull or delete a model. Tested with a real nginx in front of a server that accepts everything.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ratchet.local_stack.ports import free_port
from tests.deploy.rendering import K8S
from tests.support.programs import require_program

RECEIVED: list[tuple[str, str]] = []


class AcceptAll(BaseHTTPRequestHandler):
    """Accepts every request."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        RECEIVED.append((self.command, self.path))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815  # names of HTTP methods

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("nginx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), AcceptAll)
    Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    text = (K8S / "components" / "ollama" / "nginx.conf").read_text()
    assert text.count("127.0.0.1:11434") == 2
    text = text.replace("/tmp/", f"{folder}/").replace("listen 8080", f"listen 127.0.0.1:{port}")
    text = text.replace("127.0.0.1:11434", f"127.0.0.1:{server.server_port}")
    # If started as root, nginx would run its workers as a user without write access here.
    (folder / "nginx.conf").write_text("user root;\n" + text)
    nginx = subprocess.Popen(
        [
            require_program("nginx"),
            "-p",
            str(folder),
            "-c",
            str(folder / "nginx.conf"),
            "-e",
            "stderr",
            "-g",
            "daemon off;",
        ]
    )
    for _ in range(100):
        with suppress(ConnectionRefusedError):
            assert status(port, "GET", "/healthz") == 204
            break
        time.sleep(0.05)
    yield port
    nginx.terminate()
    nginx.wait(10)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/api/chat"),
        ("POST", "/api/generate"),
        ("POST", "/api/embed"),
        ("GET", "/v1/models"),
        ("GET", "/api/tags"),
    ],
)
def test_inference_requests_are_allowed(proxy: int, method: str, path: str) -> None:
    RECEIVED.clear()
    assert status(proxy, method, path) == 200
    assert [(method, path)] == RECEIVED


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:00"),
        ("HEAD", "/api/blobs/sha256:00"),
        ("DELETE", "/api/chat"),
        ("DELETE", "/api/tags"),
        ("PUT", "/v1/chat/completions"),
        ("DELETE", "/api/%64elete"),
        ("POST", "/api//pull"),
        ("POST", "/api/chat/../pull"),
        ("POST", "/"),
    ],
)
def test_all_other_requests_are_denied(proxy: int, method: str, path: str) -> None:
    RECEIVED.clear()
    assert status(proxy, method, path) in (403, 404)
    assert RECEIVED == []


def test_the_proxy_forwards_the_normalised_path(proxy: int) -> None:
    """Not the original path, which Ollama might interpret differently from nginx."""
    RECEIVED.clear()
    assert status(proxy, "POST", "/api/pull/../chat?model=x") == 200
    assert RECEIVED == [("POST", "/api/chat")]


def status(port: int, method: str, path: str) -> int:
    """Return the response status for a path sent verbatim; other clients normalise it."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body=b"{}")
        return connection.getresponse().status
