"""The HTTP intake, for applications without a Kafka client: feedback answered 202 is in Kafka.

Requests, limits and delivery to Kafka belong here; scoring and redaction do not.

app.py                routes and handlers (Starlette)
authorization.py      who may send
parsing.py            from a body to records for `feedback.received`, all or none
in_flight_budget.py   bound on the bytes in flight
delivery.py           records to Kafka, acknowledged
problems.py           refused requests, as problem details (RFC 9457)
"""
