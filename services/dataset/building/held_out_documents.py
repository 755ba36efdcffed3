"""Documents that are held out: no example about them is trained on."""

from collections.abc import Mapping

from shared.identity import hash_fraction

LEAST_DOCUMENTS = 4
"""Number of documents from which on at least one is held out."""
_MAX_SHARE = 0.25
"""Share of all examples of a document that is held out because no other one is."""


def held_out_documents(examples: Mapping[str, int], share: float) -> frozenset[str]:
    """Return the documents to hold out, of documents with their numbers of examples.

    A hash of the name decides, so that a document keeps its side when others are added and when its
    text changes. If it selects none of `LEAST_DOCUMENTS` or more, the document with the lowest hash
    is held out, of those with at most a quarter of all examples. Nothing is held out if `share` is
    0.
    """
    if not share:
        return frozenset()
    ranks = {name: hash_fraction("held-out document", name) for name in examples}
    chosen = frozenset(name for name, rank in ranks.items() if rank < share)
    if chosen or len(examples) < LEAST_DOCUMENTS:
        return chosen if len(chosen) < len(examples) else frozenset()
    most = _MAX_SHARE * sum(examples.values())
    small = [name for name, count in examples.items() if count <= most]
    return frozenset(sorted(small, key=lambda name: (ranks[name], name))[:1])
