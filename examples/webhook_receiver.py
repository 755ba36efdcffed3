"""Receive Ratchet's webhooks: verify each message by Standard Webhooks, and act on it once.

RATCHET_WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 9000
"""

import base64
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 64 * 1024


def verified(headers: Mapping[str, str], body: bytes, secret: str) -> Any:
    """Return the content of a message. Raises ValueError if it is not Ratchet's, or is old."""
    identifier, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        raise ValueError("the timestamp is too old or too new")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{identifier}.{timestamp}.".encode() + body, "sha256")
    expected = b"v1," + base64.b64encode(digest)
    signatures = headers["webhook-signature"].encode().split()
    if not any(hmac.compare_digest(expected, signature) for signature in signatures):
        raise ValueError("no signature matches")
    return json.loads(body)


class Receiver(BaseHTTPRequestHandler):
    """Verifies, prints and answers each message."""

    seen: ClassVar[OrderedDict[str, None]] = OrderedDict()

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.send_error(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            message = verified(
                headers, self.rfile.read(int(length)), os.environ["RATCHET_WEBHOOK_SECRET"]
            )
        except (KeyError, ValueError) as error:
            self.send_error(400, str(error))
            return
        # A message may come twice, under the same id.
        if headers["webhook-id"] not in self.seen:
            self.seen[headers["webhook-id"]] = None
            if len(self.seen) > 10_000:
                self.seen.popitem(last=False)
            data = message["data"]
            print(message["type"], data["model"], data["version"], data["reason"], flush=True)
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
