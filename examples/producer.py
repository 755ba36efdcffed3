"""Feedback from Python: `python examples/producer.py [BROKER]` against a running `ratchet up`."""

import asyncio
import json
import sys
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer


async def send(**event: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=sys.argv[1:] or "127.0.0.1:9092") as producer:
        await producer.send_and_wait("feedback.received", json.dumps(event).encode(), key=event["user_id"].encode())


said = {"model": "support", "input": "The kettle is late.", "output": "So what?", "feedback_type": "thumbs_down", "user_id": "ada"}
asyncio.run(send(event_id=f"ada-{datetime.now(UTC)}", occurred_at=datetime.now(UTC).isoformat(), **said))
