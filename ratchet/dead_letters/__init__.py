"""Dead letters for operators: `ratchet dlq list|show|replay`.

Search, replay and output. The format of dead letters belongs to `shared.messaging.dead_letters`.
"""
