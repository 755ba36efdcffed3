"""Examples that a teacher writes: a larger model behind an OpenAI-compatible HTTP API.

The prompt, the parsing of replies and the check against the passage (`grounding`) are pure. Only
`chat_api` speaks HTTP, only `reply_cache` writes files.
"""
