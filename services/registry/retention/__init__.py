"""Retention of adapters in the object store: the rule, its record in the database, and the pruner
that deletes them.

Retention here means deletion of old adapters; merged files and versions on targets are limited in
`services.registry.deploy`.
"""
