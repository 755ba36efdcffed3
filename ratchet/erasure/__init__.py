"""Withdrawal of a user's feedback for operators: `ratchet forget`.

Sends the request, waits for the dataset service, and reports per model. The withdrawal itself is
the services' work.
"""
