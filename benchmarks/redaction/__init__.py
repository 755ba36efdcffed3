"""A labelled corpus of texts, and detectors of personal data and secrets that are compared on it.

`texts/` has the texts by genre; a slot such as `«email»` is filled with a generated value.
"""
