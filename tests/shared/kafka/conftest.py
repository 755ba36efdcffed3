"""A broker that knows who comes in."""

import asyncio
from collections.abc import Iterator

import pytest

from ratchet.kafka_admin.topics import apply_topics, await_groups
from tests.support.secured_broker import Secured, secured


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker that has all topics, and lets nobody in without a certificate or a password, except
    by its open door.
    """
    found = secured(tmp_path_factory.mktemp("secured"))
    found.broker.start()
    try:
        asyncio.run(apply_topics(found.open))
        asyncio.run(await_groups(found.open))
        yield found
    finally:
        found.broker.stop()
