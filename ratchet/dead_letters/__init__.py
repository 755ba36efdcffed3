"""Dead letters for an operator: `ratchet dlq list|show|replay`."""
