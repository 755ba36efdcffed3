"""kill -9 between every two durable steps of both services, on a real broker. A new row of the
catalogue is tested by being there.
"""

import pytest

from shared.failpoints import FAILPOINTS, Service
from tests.chaos.__main__ import SERVICES
from tests.chaos.world import World

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(180)]

POINTS: list[tuple[Service, str]] = [
    (service, row.name) for row in FAILPOINTS for service in row.services if service in SERVICES
]


@pytest.mark.parametrize(("service", "point"), POINTS)
async def test_a_kill_at_a_failpoint_loses_and_doubles_nothing(
    world: World, service: Service, point: str
) -> None:
    for worker in world.of(service):
        world.stop(worker)
    other: Service = "dataset" if service == "feedback" else "feedback"
    if not world.of(other):
        world.launch(other)
    if point == "dataset.recovering":
        # There is something to repair.
        dying = world.launch("dataset", "dataset.member_sent=kill@2")
        await world.send(60)
        assert await world.died(dying) == -9
    dying = world.launch(
        service, f"{point}=kill@2" if point != "dataset.recovering" else f"{point}=kill"
    )
    await world.send(60)
    assert await world.died(dying) == -9
    assert f"at={point}" in dying.log
    world.launch(service)
    await world.nothing_lost_or_doubled(once_more=False)


async def test_recovery_after_all_kills_loses_and_doubles_nothing(
    world: World,
) -> None:
    await world.nothing_lost_or_doubled()
