"""Tokens and headers of the callers in registry tests."""

from shared.auth.bearer_tokens import tokens_for_role

READ, OPERATE = "a-token-that-may-read", "a-token-that-may-operate"
TOKENS = tokens_for_role("read", [READ], "tests") | tokens_for_role("operate", [OPERATE], "tests")

READER = {"Authorization": f"Bearer {READ}"}
OPERATOR = {"Authorization": f"Bearer {OPERATE}"}
