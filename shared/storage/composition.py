"""Statistics of a set of examples: users, kinds, sources and repetition."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from shared.identity import identity, prompt_identity
from shared.storage.snapshots import Composition, Example, Summary, UserCounts


def composition_of(examples: Iterable[Example]) -> Composition:
    """Return the statistics of a set of examples, independent of their order."""
    counter = CompositionCounter()
    for example in examples:
        counter.add(example)
    return counter.composition


class CompositionCounter:
    """Counts examples one by one, without keeping them."""

    def __init__(self) -> None:
        self._prompts: set[str] = set()
        self._answers: set[str] = set()
        self._users: Counter[str] = Counter()
        self._feedback_types: Counter[str] = Counter()
        self._model_versions: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._rewards = array("d")
        self._qualities = array("d")

    def add(self, example: Example) -> None:
        """Count an example."""
        self._prompts.add(prompt_identity(example.messages))
        self._answers.add(identity(example.answer.strip()))
        if example.user_id is not None:
            self._users[example.user_id] += 1
        self._feedback_types[example.feedback_type] += 1
        self._model_versions[example.model_version or ""] += 1
        self._sources[source_of(example.feedback_id)] += 1
        self._rewards.append(example.reward)
        self._qualities.append(example.quality)

    @property
    def composition(self) -> Composition:
        """The statistics of the examples so far."""
        examples = len(self._rewards)
        largest = max(self._users.values(), default=0)
        return Composition(
            examples=examples,
            prompts=len(self._prompts),
            answers=len(self._answers),
            users=UserCounts(
                distinct=len(self._users),
                largest_share=largest / examples if examples else 0.0,
                unnamed=examples - self._users.total(),
            ),
            feedback_types=_sorted(self._feedback_types),
            model_versions=_sorted(self._model_versions),
            sources=_sorted(self._sources),
            reward=_spread(self._rewards),
            quality=_spread(self._qualities),
        )


def source_of(feedback_id: str) -> str:
    """Return the CloudEvents source in an event's id (see `FeedbackScored.identity`); empty without
    one.
    """
    source, bar, _ = feedback_id.partition("|")
    return source if bar else ""


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _spread(values: Sequence[float]) -> Summary | None:
    # fsum rounds once, so that the mean does not depend on the order, nor on how a Python's own sum
    # adds up.
    return (
        Summary(least=min(values), mean=fsum(values) / len(values), most=max(values))
        if values
        else None
    )
