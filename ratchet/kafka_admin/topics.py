"""The topic table, applied to a cluster: what is missing is created, what differs is said, nothing
is ever deleted.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code

from shared.errors import BusUnavailable
from shared.kafka.security import PLAINTEXT, Security, connection_error
from shared.messaging.topics import TOPICS, Topic


@dataclass(frozen=True)
class AppliedTopics:
    """What applying the table did."""

    created: tuple[str, ...]
    present: tuple[str, ...]


async def apply_topics(
    bootstrap_servers: str,
    topics: Iterable[Topic] = TOPICS,
    replication: int = 1,
    partitions: int | None = None,
    security: Security = PLAINTEXT,
) -> AppliedTopics:
    """Create the topics that a cluster lacks, each with `partitions` or as many as the table says.

    Raises BusUnavailable when it does not answer or refuses.
    """
    wanted = list(topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **security.options)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in existing]
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
    except (KafkaError, OSError) as error:
        why = await connection_error(bootstrap_servers, security) or str(error)
        raise BusUnavailable(
            f"topics could not be applied at {bootstrap_servers}: {why}"
        ) from error
    finally:
        await admin.close()
    return AppliedTopics(
        tuple(topic.name for topic in missing),
        tuple(topic.name for topic in wanted if topic.name in existing),
    )


async def existing_topics(bootstrap_servers: str, security: Security = PLAINTEXT) -> set[str]:
    """The topics that a cluster has. Raises BusUnavailable when it does not answer."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **security.options)
    try:
        await admin.start()
        return set(await admin.list_topics())
    except (KafkaError, OSError) as error:
        why = await connection_error(bootstrap_servers, security) or str(error)
        raise BusUnavailable(
            f"no Kafka broker answers at {bootstrap_servers}: {why}; is "
            "RATCHET_BOOTSTRAP_SERVERS right?"
        ) from error
    finally:
        await admin.close()


async def wait_for_group_coordinator(
    bootstrap_servers: str, attempts: int = 100, security: Security = PLAINTEXT
) -> None:
    """Return once a new cluster can take members of consumer groups: the first to ask makes it
    create the topic that it keeps them in.

    Raises BusUnavailable when it cannot after `attempts` tenths of a second.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **security.options)
    try:
        await admin.start()
        for _ in range(attempts):
            try:
                await admin.find_coordinator("ratchet-feedback")
            except GroupCoordinatorNotAvailableError:
                await asyncio.sleep(0.1)
            else:
                return
    except (KafkaError, OSError) as error:
        raise BusUnavailable(
            f"{bootstrap_servers} has no coordinator for consumer groups: {error}"
        ) from error
    finally:
        await admin.close()
    raise BusUnavailable(
        f"{bootstrap_servers} has no coordinator for consumer groups after {attempts / 10:g} s"
    )


def _check(errors: Iterable[tuple[object, ...]]) -> None:
    """Raise for the first topic that was refused for another reason than that someone else has just
    created it.
    """
    already_exists = 36
    for name, code, *about in errors:
        if code not in (0, already_exists):
            raise BusUnavailable(f"{name}: {for_code(code).__name__} {about[0] if about else ''}")
