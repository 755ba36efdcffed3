"""Deployment of versions to serving targets: merged models, verification, the deployer's loops.

Decisions about which version is champion or on a canary trial are made elsewhere, in
`services.registry.versions` and `services.registry.rollout`.
"""
