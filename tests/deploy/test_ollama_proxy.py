"""The proxy before Ollama lets questions pass and nothing that makes, copies, pulls or removes a
model: a real nginx, before a server that would do anything.
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

ASKED: list[tuple[str, str]] = []


class Anything(BaseHTTPRequestHandler):
    """Does whatever it is asked."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        ASKED.append((self.command, self.path))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815  # the names are those of the methods of HTTP

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("nginx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Anything)
    Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    text = (K8S / "components" / "ollama" / "nginx.conf").read_text()
    assert text.count("127.0.0.1:11434") == 2
    text = text.replace("/tmp/", f"{folder}/").replace("listen 8080", f"listen 127.0.0.1:{port}")
    text = text.replace("127.0.0.1:11434", f"127.0.0.1:{server.server_port}")
    # nginx started as root would have its workers be somebody who may not write here.
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
    ASKED.clear()
    assert status(proxy, method, path) == 200
    assert [(method, path)] == ASKED


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
    ASKED.clear()
    assert status(proxy, method, path) in (403, 404)
    assert ASKED == []


def test_the_proxy_forwards_the_normalised_path(proxy: int) -> None:
    """Not as it was spelled: else what nginx takes for a question could be something else for
    Ollama.
    """
    ASKED.clear()
    assert status(proxy, "POST", "/api/pull/../chat?model=x") == 200
    assert ASKED == [("POST", "/api/chat")]


def status(port: int, method: str, path: str) -> int:
    """The status of an answer to a request for a path as it is written: other clients tidy it."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body=b"{}")
        return connection.getresponse().status
