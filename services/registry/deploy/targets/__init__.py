"""Serving targets: one Protocol and its implementations for llama.cpp, Ollama and folders.

The `httpx` and `ollama` libraries are imported only here. Targets know nothing of the database.
"""
