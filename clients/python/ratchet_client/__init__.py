"""Feedback from an application to Ratchet. The client takes it in microseconds; a thread of its own
brings it to Kafka or to the HTTP intake, by way of a spool on disk while those are away.

    client.py        Client and AsyncClient: what an application uses
    openai.py        capture: an OpenAI-compatible client whose answers can be named in feedback
    generations.py   what was asked and answered, for feedback that only names the answer
    event.py         what is said, checked, as one line of JSON
    buffer.py        what was recorded a moment ago
    spool.py         what could not be sent yet, on disk or in memory
    sender.py        buffer ──▶ Kafka, or buffer ──▶ spool ──▶ Kafka
    transport.py     the port to what takes feedback; kafka.py and http.py are the two
    counters.py      how much was recorded, sent, spooled and dropped
"""

from ratchet_client.client import AsyncClient, Client
from ratchet_client.counters import Counts
from ratchet_client.event import FeedbackFields, FeedbackType, InvalidFeedback, Message
from ratchet_client.openai import capture

__all__ = [
    "AsyncClient",
    "Client",
    "Counts",
    "FeedbackFields",
    "FeedbackType",
    "InvalidFeedback",
    "Message",
    "capture",
]
