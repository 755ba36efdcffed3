"""The embedded llama.cpp host: immutable tags, movable aliases, an OpenAI-style HTTP interface."""
