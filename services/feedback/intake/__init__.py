"""Feedback over HTTP, for those who cannot reach Kafka: what was answered 202 is in Kafka.

answers.py     what is answered; what is the matter (RFC 9457)
access.py      who may send
room.py        how much may be under way
reading.py     from a body to records for `feedback.received`, all or none
delivery.py    records into Kafka, acknowledged
app.py         these in their order; health and metrics beside them
http.py        connections (HTTP/1.1, h11)
serving.py     a thread for all of it
"""
