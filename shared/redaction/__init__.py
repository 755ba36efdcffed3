"""Redaction: replaces personal data in texts with placeholders and pseudonyms before storage.

Finders, one module per kind of data, and the code that replaces their matches. No I/O, and no
policy: that is configuration.
"""
