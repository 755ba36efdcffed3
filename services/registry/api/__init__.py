"""The registry's HTTP API for programs: routes, schemas, errors, tokens, and conditional moves.

Decisions about versions and SQL do not belong here.
"""
