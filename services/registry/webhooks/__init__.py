"""Webhooks: signed HTTP requests that tell other systems about decisions, sent from the audit log.
The messages and the back-off are pure; no decision waits for a receiver.
"""
