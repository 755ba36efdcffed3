"""Who asks the registry in tests, by what they send."""

from shared.auth.bearer_tokens import tokens

READ, OPERATE = "a-token-that-may-read", "a-token-that-may-operate"
TOKENS = tokens("read", [READ], "tests") | tokens("operate", [OPERATE], "tests")

READER = {"Authorization": f"Bearer {READ}"}
OPERATOR = {"Authorization": f"Bearer {OPERATE}"}
