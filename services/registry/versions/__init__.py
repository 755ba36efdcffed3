"""Versions of a model: alias moves, provenance and withdrawals.

The pure rules and the functions that apply them in a transaction. HTTP and deployment do not
belong here.
"""
