"""A broker that knows who comes in."""

import asyncio
from collections.abc import Iterator

import pytest

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from tests.support.secured_broker import SecuredBroker, secured_broker


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """A broker that has all topics, and lets nobody in without a certificate or a password, except
    by its open door.
    """
    found = secured_broker(tmp_path_factory.mktemp("secured"))
    found.broker.start()
    try:
        asyncio.run(apply_topics(found.open))
        asyncio.run(wait_for_group_coordinator(found.open))
        yield found
    finally:
        found.broker.stop()
