"""Processing of one record of `feedback.received`, as a pure function of the record."""

from services.feedback.erasure import KeyedRequest, decode_user_forgotten, withdrawal_requests
from services.feedback.scoring import Policies, ScoredFeedback, score
from shared.messaging.bus import Record


def process_record(record: Record, policies: Policies) -> ScoredFeedback | list[KeyedRequest]:
    """Return the scored feedback of a record, or the withdrawal requests of a `UserForgotten`.
    Raises Unprocessable for a permanent error.
    """
    if forgotten := decode_user_forgotten(record):
        return withdrawal_requests(forgotten, record.position, policies)
    return score(record, policies)
