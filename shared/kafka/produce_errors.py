"""Errors of a producer, as Ratchet's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from shared.errors import BusUnavailable, Misconfigured

SIZE_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError)


@contextmanager
def translate_errors(topic: str) -> Iterator[None]:
    """Raise Misconfigured for a record that is too large for `topic`, BusUnavailable for any other
    error of Kafka inside the context.
    """
    try:
        yield
    except SIZE_ERRORS as error:
        raise Misconfigured(
            f"a record is too large for {topic}; raise its max.message.bytes, then restart: {error}"
        ) from error
    except InvalidTimestampError as error:
        raise BusUnavailable(
            f"could not write to {topic}: the broker refuses the time of a record; compare this "
            "machine's clock with the broker's, and see message.timestamp.before.max.ms and "
            f"message.timestamp.after.max.ms of the topic: {error}"
        ) from error
    except KafkaError as error:
        raise BusUnavailable(f"could not write to {topic}: {error}") from error
