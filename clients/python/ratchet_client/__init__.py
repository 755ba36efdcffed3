"""Client that sends feedback from an application to Ratchet.

Recording takes microseconds; a background thread sends events to Kafka or to the HTTP intake, and
spools them on disk while those are unavailable.

    client.py        Client and AsyncClient: the public API
    openai.py        capture: an OpenAI-compatible client whose answers feedback can refer to
    generations.py   captured prompts and answers
    event.py         validation and encoding of feedback as one line of JSON
    buffer.py        events recorded a moment ago, in memory
    spool.py         unsent events, on disk or in memory
    sender.py        buffer ──▶ Kafka, or buffer ──▶ spool ──▶ Kafka
    transport.py     the transport port; kafka.py and http.py implement it
    counters.py      counts of recorded, sent, spooled and dropped events
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
    "Said",
    "capture",
]

Said = FeedbackFields
"""The former name of `FeedbackFields`, for applications written against it."""
