"""Bearer tokens of HTTP clients, and the mounted file they are read from.

The header and the check for local requests are in `shared.http`; permissions belong to the
services.
"""
