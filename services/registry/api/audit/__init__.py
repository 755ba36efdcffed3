"""The audit log over HTTP: its route, and the entries of refused requests."""
