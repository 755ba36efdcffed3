"""Publication of the service's events, repeated while Kafka is unavailable."""

from shared.events import Event
from shared.logs import Log
from shared.messaging.bus import Producer, publish
from shared.messaging.codec import Headers
from shared.service.retry import RetryPolicy

SOURCE = "/ratchet/dataset"


class EventPublisher:
    """Publishes events as this service, and waits for their delivery."""

    def __init__(self, producer: Producer, retry: RetryPolicy, log: Log) -> None:
        self._producer = producer
        self._retry = retry
        self._log = log

    async def publish(
        self, topic: str, key: str, event: Event, extra_headers: Headers = ()
    ) -> None:
        """Publish an event. Raises Unavailable after all attempts."""
        await self._retry.call(
            lambda: publish(self._producer, topic, key, event, SOURCE, extra_headers), self._log
        )

    async def publish_once(self, topic: str, key: str, event: Event) -> None:
        """Publish an event in one attempt. Raises Unavailable."""
        await publish(self._producer, topic, key, event, SOURCE)
