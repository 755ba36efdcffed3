"""The registry's SQL store: tables, migrations, queries, transactions, leases and the outbox.

The only package of the registry that imports SQLAlchemy. It decides nothing about versions.
"""
