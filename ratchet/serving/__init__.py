"""Embedded model serving: llama.cpp behind an OpenAI-style HTTP API, with immutable tags and
movable aliases. Deployment to it belongs to the registry.
"""
