"""A small HTTP server that speaks the chat completions API and answers as a test decides."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]


@dataclass(frozen=True)
class HttpReply:
    """A response: its body is JSON, or bytes as they are. `stall` keeps the connection open with a
    blank now and then instead of a body.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: bool = False


def completion(content: str | None, **message: Any) -> HttpReply:
    """Return a reply with this content, and with further fields of its message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}}
    return HttpReply({"choices": [choice], "usage": {"total_tokens": 100}})


def examples(*items: tuple[str, str, str]) -> str:
    """Return the content with these questions, answers and quotes."""
    fields = ("question", "answer", "quote")
    return json.dumps({"examples": [dict(zip(fields, item, strict=True)) for item in items]})


@dataclass
class TeacherServer:
    """The server's URL, and the requests and keys that it has seen."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def teacher_server(answer: Callable[[Request, int], HttpReply]) -> Iterator[TeacherServer]:
    """Serve until the end of the context. `answer` gets a request and its number, from 0."""
    seen, lock, ended = TeacherServer(), threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(seen.requests)
                seen.requests.append(request)
                seen.keys.append(self.headers.get("Authorization"))
            if self.path != "/v1/chat/completions":
                self._send(HttpReply({"error": "no such path"}, 404))
                return
            self._send(answer(request, number))

        def _send(self, reply: HttpReply) -> None:
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(10**6 if reply.stall else len(data)))
            self.end_headers()
            try:
                while reply.stall and not ended.wait(0.02):
                    self.wfile.write(b" ")
                self.wfile.write(data)
            except OSError:
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
