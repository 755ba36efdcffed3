"""HTTP building blocks that every server of Ratchet uses: probes, problem details, token checks.

No routes and no web framework: those belong to the service that serves them.
"""
