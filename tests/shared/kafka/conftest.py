"""A broker with authentication."""

import asyncio
from collections.abc import Iterator

import pytest

from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from tests.support.secured_broker import SecuredBroker, secured_broker


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """A broker with all topics that requires a certificate or a password, except on its plaintext
    listener.
    """
    secured = secured_broker(tmp_path_factory.mktemp("secured"))
    secured.broker.start()
    try:
        asyncio.run(apply_topics(secured.open))
        asyncio.run(wait_for_group_coordinator(secured.open))
        yield secured
    finally:
        secured.broker.stop()
