"""Creates the topics of the topic table that a cluster lacks. Existing topics are neither changed
nor deleted.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code

from shared.errors import BusUnavailable
from shared.kafka.security import PLAINTEXT, Security, connection_error
from shared.messaging.topics import TOPICS, Topic
from shared.service.retry import RetryPolicy

_LISTED_ATTEMPTS = 300


@dataclass(frozen=True)
class AppliedTopics:
    """Topics that were created, and topics that existed."""

    created: tuple[str, ...]
    present: tuple[str, ...]


async def apply_topics(
    bootstrap_servers: str,
    topics: Iterable[Topic] = TOPICS,
    replication: int = 1,
    partitions: int | None = None,
    security: Security = PLAINTEXT,
) -> AppliedTopics:
    """Create the missing topics, with `partitions` each or the number in the topic table, and wait
    until the cluster lists them.

    Raises BusUnavailable if the cluster does not answer or rejects the request.
    """
    declared = list(topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **security.options)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [topic for topic in declared if topic.name not in existing]
        new = [
            NewTopic(
                topic.name,
                partitions or topic.partitions,
                replication,
                topic_configs={name: str(value) for name, value in topic.settings.items()},
            )
            for topic in missing
        ]
        if new:
            response = await admin.create_topics(new)
            _check(response.topic_errors)
            await _wait_until_listed(admin, {topic.name for topic in missing})
    except (KafkaError, OSError) as error:
        reason = await connection_error(bootstrap_servers, security) or str(error)
        raise BusUnavailable(
            f"topics could not be applied at {bootstrap_servers}: {reason}"
        ) from error
    finally:
        await admin.close()
    return AppliedTopics(
        tuple(topic.name for topic in missing),
        tuple(topic.name for topic in declared if topic.name in existing),
    )


async def _wait_until_listed(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Wait until a broker lists new topics: the controller creates them before the brokers know,
    and a consumer that starts earlier gets no partitions. Raises BusUnavailable after 30 s.
    """

    async def require_listed() -> None:
        if absent := names - set(await admin.list_topics()):
            raise BusUnavailable(
                f"the cluster does not list {', '.join(sorted(absent))} yet; try again"
            )

    await RetryPolicy(_LISTED_ATTEMPTS, seconds=0.1).call(require_listed)


async def existing_topics(bootstrap_servers: str, security: Security = PLAINTEXT) -> set[str]:
    """Return the names of a cluster's topics. Raises BusUnavailable if it does not answer."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **security.options)
    try:
        await admin.start()
        return set(await admin.list_topics())
    except (KafkaError, OSError) as error:
        reason = await connection_error(bootstrap_servers, security) or str(error)
        raise BusUnavailable(
            f"no Kafka broker answers at {bootstrap_servers}: {reason}; check "
            "RATCHET_BOOTSTRAP_SERVERS"
        ) from error
    finally:
        await admin.close()


async def wait_for_group_coordinator(
    bootstrap_servers: str, attempts: int = 100, security: Security = PLAINTEXT
) -> None:
    """Wait until a new cluster accepts members of consumer groups: the first request makes it
    create its offsets topic.

    Raises BusUnavailable if it does not within `attempts` tenths of a second.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **security.options)

    async def find_coordinator() -> None:
        try:
            await admin.find_coordinator("ratchet-feedback")
        except GroupCoordinatorNotAvailableError as error:
            raise BusUnavailable(
                f"{bootstrap_servers} has no coordinator for consumer groups after "
                f"{attempts / 10:g} s"
            ) from error

    try:
        await admin.start()
        await RetryPolicy(attempts, seconds=0.1).call(find_coordinator)
    except (KafkaError, OSError) as error:
        raise BusUnavailable(
            f"{bootstrap_servers} has no coordinator for consumer groups: {error}"
        ) from error
    finally:
        await admin.close()


def _check(errors: Iterable[tuple[object, ...]]) -> None:
    """Raise BusUnavailable for the first error; a topic created concurrently is no error."""
    already_exists = 36
    for name, code, *details in errors:
        if code not in (0, already_exists):
            raise BusUnavailable(
                f"{name}: {for_code(code).__name__} {details[0] if details else ''}"
            )
