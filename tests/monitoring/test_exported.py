"""Service processes export the metrics of the catalogue. For the trainer, which starts slowly, see
tests/trainer/test_service.py.
"""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest

from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, TRAINING_BATCHES
from tests.support.exported_metrics import check_exported, sample
from tests.support.service_process import Headers, ServiceProcess, send
from tests.support.silent_connections import silent_connections

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


async def test_services_export_the_catalogue_and_their_lag(broker: str, tmp_path: Path) -> None:
    model = f"m{uuid4().hex[:8]}"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{model}.yaml").write_text(
        f"model: {model}\nbase: {{training: base, serving: base.gguf}}\n"
    )
    group = f"feedback-{model}"
    feedback = ServiceProcess("feedback", broker, tmp_path, RATCHET_FEEDBACK_GROUP=group)
    dataset = ServiceProcess("dataset", broker, tmp_path, RATCHET_DATASET_GROUP=f"dataset-{model}")
    database, merged = f"sqlite:///{tmp_path / 'registry.db'}", str(tmp_path / "merged")
    registry = ServiceProcess(
        "registry", broker, tmp_path, RATCHET_DATABASE=database, RATCHET_MERGED=merged
    )
    services = {"feedback": feedback, "dataset": dataset, "registry": registry}
    fields = {
        "model": model,
        "input": "q",
        "output": "a",
        "feedback_type": "thumbs_up",
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    good: list[tuple[bytes | None, bytes | None, Headers]] = [
        (model.encode(), json.dumps(fields | {"event_id": f"{model}-{number}"}).encode(), [])
        for number in range(20)
    ]
    try:
        await asyncio.gather(*(service.start() for service in services.values()))
        undeclared = json.dumps(fields | {"event_id": f"{model}-x", "model": "undeclared"}).encode()
        await send(broker, FEEDBACK_RECEIVED, [*good, (model.encode(), undeclared, [])])

        def scored() -> float | None:
            return sample(
                feedback.metrics,
                "ratchet_feedback_received_total",
                model=model,
                feedback_type="thumbs_up",
            )

        def lag(service: ServiceProcess, group: str, topic: str) -> float | None:
            return sample(service.metrics, "ratchet_consumer_lag_records", group=group, topic=topic)

        def refused() -> float:  # other tests send feedback to this broker as well
            return (
                sample(feedback.metrics, "ratchet_feedback_refused_total", reason="UnknownModel")
                or 0
            )

        await feedback.wait_until(lambda: scored() == 20 and refused() >= 1, "scoring")
        await feedback.wait_until(
            lambda: lag(feedback, group, FEEDBACK_RECEIVED) == 0, "without lag"
        )
        await dataset.wait_until(
            lambda: lag(dataset, f"dataset-{model}", FEEDBACK_SCORED) == 0, "without lag"
        )
        await registry.wait_until(
            lambda: lag(registry, "ratchet-registry", TRAINING_BATCHES) is not None,
            "exporting its lag",
        )
        await registry.wait_until(
            lambda: lag(registry, "ratchet-registry-live", FEEDBACK_SCORED) is not None,
            "exporting its lag",
        )
        exposed = {name: service.metrics for name, service in services.items()}
        for service in services.values():
            with silent_connections(service.port):
                assert service.is_ready(), service.log
    finally:
        statuses = {
            name: await asyncio.to_thread(service.stop)
            for name, service in services.items()
            if service.process is not None
        }
    assert statuses == {"feedback": 0, "dataset": 0, "registry": 0}, [
        service.log for service in services.values()
    ]
    for name, text in exposed.items():
        check_exported(name, text)
        assert sample(text, "ratchet_service_live") == sample(text, "ratchet_service_ready") == 1
    assert (
        sample(exposed["feedback"], "ratchet_feedback_refused_total", reason="TooLarge") is not None
    )
    assert (sample(exposed["feedback"], "faust_events_total") or 0) >= 21
    assert (sample(exposed["dataset"], "faust_messages_sent_total") or 0) >= 20
    assert sample(exposed["dataset"], "ratchet_object_store_errors_total", operation="put") == 0
    for folder in ("merged", "object_store", "database"):
        free = sample(exposed["registry"], "ratchet_disk_free_bytes", folder=folder)
        size = sample(exposed["registry"], "ratchet_disk_size_bytes", folder=folder)
        assert free is not None
        assert size is not None
        assert 0 < free < size
