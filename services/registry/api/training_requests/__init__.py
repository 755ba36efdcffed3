"""Training started by a person over HTTP: uploaded files, and requests with their state."""
