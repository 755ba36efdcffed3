"""Entry point of the feedback service: `python -m services.feedback`."""

import asyncio
import sys
from collections.abc import Callable

from services.feedback.app import FeedbackHandler, register_agent
from services.feedback.intake.app import Intake, RequestLimits
from services.feedback.intake.delivery import KafkaDelivery
from services.feedback.scoring import Policies
from services.feedback.settings import FeedbackSettings
from shared.auth.token_file import open_token_file
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.config.settings import read_settings
from shared.failpoints import arm
from shared.http.bounded_server import serve_in_thread, server_config
from shared.http.health_server import serve_health
from shared.kafka.client import KafkaProducer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.security import Security, kafka_security
from shared.kafka.streams import OffsetCommitter, create_app, run_app
from shared.logs import configure
from shared.messaging.topics import FEEDBACK_RECEIVED
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.observability.process_metrics import export_process_metrics
from shared.observability.tracing import create_tracing
from shared.redaction.names import load_name_finder
from shared.service.exit_status import exit_status
from shared.service.runtime import Runtime


async def serve(settings: FeedbackSettings) -> None:
    """Run until SIGTERM. Raises RatchetError on an error that a restart may fix."""
    log = configure("feedback", settings.log_level, settings.log_format)
    arm(settings.failpoints, log)
    clock = SystemClock()
    runtime = Runtime(
        "feedback",
        clock,
        log,
        Metrics("feedback"),
        Health(clock, settings.stalled_seconds, settings.recovery_seconds),
        create_tracing("feedback", settings.traces),
    )
    models = load_models(settings.models)
    find_names = None
    if any(file.redaction.names for file in models.files.values()):
        find_names = load_name_finder(settings.names_pipeline, settings.names_language)
    policies = Policies(models, find_names)
    security = kafka_security(settings)
    producer = KafkaProducer(settings.bootstrap_servers, security)
    app = create_app(settings.feedback_group, settings, security)
    commits = OffsetCommitter(
        app,
        FEEDBACK_RECEIVED,
        runtime.health,
        EndOffsets(settings.bootstrap_servers, security=security),
        runtime.metrics,
    )
    register_agent(app, FeedbackHandler(policies, producer, runtime), commits, runtime.health)
    export_process_metrics(runtime.metrics, runtime.health, {"data": settings.data})
    stop_http = _serve_http(settings, security, policies, runtime)
    try:
        await producer.start()
        await run_app(app, commits, log)
    finally:
        await producer.stop()
        await asyncio.to_thread(runtime.tracing.close)
        await asyncio.to_thread(stop_http)


def _serve_http(
    settings: FeedbackSettings, security: Security, policies: Policies, runtime: Runtime
) -> Callable[[], None]:
    """Serve probes and metrics, and the intake if enabled; returns a function that stops it."""
    host, port = settings.http_host, settings.feedback_port
    if not settings.intake:
        return serve_health(runtime.health, runtime.metrics.registry, host, port)
    tokens = open_token_file(
        settings.intake_tokens_file,
        "RATCHET_INTAKE_TOKENS_FILE",
        ("send",),
        settings.require_tokens,
        runtime.log,
    )
    limits = RequestLimits(
        settings.intake_events, settings.intake_body_bytes, settings.intake_in_flight_bytes
    )
    delivery = KafkaDelivery(
        settings.bootstrap_servers, settings.intake_acknowledged_seconds, security
    )
    app = Intake(limits, policies, delivery, tokens, runtime).app
    return serve_in_thread(
        server_config(app, max_body_bytes=None, date_header=False), host, port, "intake"
    )


def main() -> int:
    """Run the service and return its exit status."""
    return exit_status("feedback", lambda: asyncio.run(serve(read_settings(FeedbackSettings))))


if __name__ == "__main__":
    sys.exit(main())
