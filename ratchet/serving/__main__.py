"""Starts the serving host: `python -m ratchet.serving`."""

import signal
import sys

import uvicorn

from ratchet.serving.api import build_app
from ratchet.serving.engine import EngineOptions
from ratchet.serving.host import ServingHost
from ratchet.serving.settings import ServingSettings
from shared.auth.token_file import open_token_file
from shared.config.settings import read_settings
from shared.errors import Misconfigured
from shared.http.bounded_server import listen, server_config
from shared.logs import configure

MAX_BODY_BYTES = 8 << 20
"""Longest request: many times the context of the models that it serves."""


def main() -> int:
    try:
        settings = read_settings(ServingSettings)
        log = configure("serving", settings.log_level, settings.log_format)
        options = EngineOptions(settings.serving_context, settings.serving_slots, settings.threads)
        tokens = open_token_file(
            settings.serving_tokens_file,
            "RATCHET_SERVING_TOKENS_FILE",
            ("read", "operate"),
            settings.require_tokens,
            log,
        )
        host = ServingHost(
            settings.serving_data, settings.merged, options, settings.serving_loaded, log
        )
    except Misconfigured as error:
        print(error, file=sys.stderr)
        return 2
    server = uvicorn.Server(
        server_config(build_app(host, tokens), max_body_bytes=MAX_BODY_BYTES, shutdown_seconds=10)
    )
    try:
        sockets = listen(settings.http_host, settings.serving_port)
    except OSError as error:
        print(f"serving: {error}", file=sys.stderr)
        return 1
    log.info(
        "serving",
        address=f"http://{settings.http_host}:{settings.serving_port}",
        data=str(settings.serving_data),
    )
    # After a graceful stop, uvicorn raises the signal again; by then nothing is left to stop.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run(sockets)
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
