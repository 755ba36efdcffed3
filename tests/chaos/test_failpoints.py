"""kill -9 between every two durable steps of both services, on a real broker. Every row of the
failpoint catalogue is tested.
"""

import pytest

from shared.failpoints import FAILPOINTS, Service
from tests.chaos.__main__ import SERVICES
from tests.chaos.harness import ChaosHarness

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(180)]

POINTS: list[tuple[Service, str]] = [
    (service, row.name) for row in FAILPOINTS for service in row.services if service in SERVICES
]


@pytest.mark.parametrize(("service", "point"), POINTS)
async def test_a_kill_at_a_failpoint_loses_and_duplicates_nothing(
    harness: ChaosHarness, service: Service, point: str
) -> None:
    for worker in harness.workers_of(service):
        harness.stop(worker)
    other_service: Service = "dataset" if service == "feedback" else "feedback"
    if not harness.workers_of(other_service):
        harness.launch(other_service)
    if point == "dataset.recovering":
        # Leave something to repair.
        doomed = harness.launch("dataset", "dataset.member_sent=kill@2")
        await harness.send(60)
        assert await harness.wait_for_exit(doomed) == -9
    doomed = harness.launch(
        service, f"{point}=kill@2" if point != "dataset.recovering" else f"{point}=kill"
    )
    await harness.send(60)
    assert await harness.wait_for_exit(doomed) == -9
    assert f"at={point}" in doomed.log
    harness.launch(service)
    await harness.assert_exactly_once(recover=False)


async def test_recovery_after_all_kills_loses_and_duplicates_nothing(
    harness: ChaosHarness,
) -> None:
    await harness.assert_exactly_once()
