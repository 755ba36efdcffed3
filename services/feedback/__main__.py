"""The feedback service: `python -m services.feedback`."""

import asyncio
import sys

from services.feedback.app import Feedback, attach
from services.feedback.redaction.names import load_name_finder
from services.feedback.scoring import Policies
from services.feedback.settings import FeedbackSettings
from shared.bus import KafkaProducer
from shared.clock import SystemClock
from shared.failpoints import arm
from shared.health import Health, serve_health
from shared.log_ends import LogEnds
from shared.logs import configure
from shared.metrics import Metrics
from shared.model_file import load_models
from shared.process import exit_status
from shared.settings import read
from shared.streams import Commits, create_app, run
from shared.topics import FEEDBACK_RECEIVED
from shared.tracing import tracing


async def serve(settings: FeedbackSettings) -> None:
    """Run until SIGTERM. Raises RatchetError when it cannot go on."""
    log = configure("feedback", settings.log_level, settings.log_format)
    arm(settings.failpoints, log)
    clock, metrics = SystemClock(), Metrics("feedback")
    traces = tracing("feedback", settings.traces)
    health = Health(clock, settings.stalled_seconds, settings.recovery_seconds)
    models = load_models(settings.models)
    with_names = any(file.redaction.names for file in models.files.values())
    policies = Policies(models, load_name_finder(settings.names_pipeline, settings.names_language) if with_names else None)
    producer = KafkaProducer(settings.bootstrap_servers)
    app = create_app(settings.feedback_group, settings)
    commits = Commits(app, FEEDBACK_RECEIVED, health, LogEnds(settings.bootstrap_servers))
    attach(app, Feedback(policies, producer, metrics, clock, log, traces), commits, health)
    stop_health = serve_health(health, metrics.registry, settings.http_host, settings.feedback_port)
    try:
        await producer.start()
        await run(app, commits, log)
    finally:
        await producer.stop()
        await asyncio.to_thread(traces.close)
        stop_health()


def main() -> int:
    """The exit status."""
    return exit_status("feedback", lambda: asyncio.run(serve(read(FeedbackSettings))))


if __name__ == "__main__":
    sys.exit(main())
