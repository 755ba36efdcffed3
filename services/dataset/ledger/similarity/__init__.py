"""Similarity of examples: whether what differs between two texts can change what is learned.

Nothing here depends on entries or settings. `compared_example` says when an example is a
near-duplicate, `stored_text` how a text is kept, `measure` how similar two of them are, and
`candidate_index` finds those worth comparing.
"""
