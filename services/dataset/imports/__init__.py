"""Import of files: readers of file types, parsers of record formats, curation, and the snapshot.

Readers and parsers are functions of a file's bytes. They stream, hold one record at a time, and
report a line that cannot be used instead of raising. What feedback and files have in common belongs
to `services.dataset.ledger` and `services.dataset.snapshot`.
"""
