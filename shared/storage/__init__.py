"""The object store and the formats of the objects in it: batch snapshots, adapters, and the entries
of the dataset service.

Databases belong to the services.
"""
