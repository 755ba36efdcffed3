"""Statistics of a set of examples: users, kinds, sources and repetition."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import fsum

from shared.identity import prompt_identity
from shared.storage.snapshots import Composition, Example, Summary, UserCounts


def composition_of(examples: Sequence[Example]) -> Composition:
    """Return the statistics of a set of examples, independent of their order."""
    return Composition(
        examples=len(examples),
        prompts=len({prompt_identity(example.messages) for example in examples}),
        answers=len({example.answer.strip() for example in examples}),
        users=_users(examples),
        feedback_types=_counted(example.feedback_type for example in examples),
        model_versions=_counted(example.model_version or "" for example in examples),
        sources=_counted(source_of(example.feedback_id) for example in examples),
        reward=_spread([example.reward for example in examples]),
        quality=_spread([example.quality for example in examples]),
    )


def source_of(feedback_id: str) -> str:
    """Return the CloudEvents source in an event's id (see `FeedbackScored.identity`); empty without
    one.
    """
    source, bar, _ = feedback_id.partition("|")
    return source if bar else ""


def _users(examples: Sequence[Example]) -> UserCounts:
    counts = Counter(example.user_id for example in examples if example.user_id is not None)
    largest = max(counts.values(), default=0)
    return UserCounts(
        distinct=len(counts),
        largest_share=largest / len(examples) if examples else 0.0,
        unnamed=len(examples) - counts.total(),
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _spread(values: Sequence[float]) -> Summary | None:
    # fsum rounds once, so that the mean does not depend on the order, nor on how a Python's own sum
    # adds up.
    return (
        Summary(least=min(values), mean=fsum(values) / len(values), most=max(values))
        if values
        else None
    )
