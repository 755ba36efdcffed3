"""The registry service: versions and their life cycle, canary trials and rollbacks, deployment to
serving targets, HTTP API and pages.

It keeps its state in SQL and publishes it on `models.versions`; it does not train or evaluate.
"""
