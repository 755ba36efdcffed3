"""Assignment of a run's examples to training objectives.

    supervised   always: new, replayed and rehearsed examples, weighted by their quality
    dpo          if the batch has at least `dpo_pairs` corrections, each with the answer it replaced
    kto          if the batch has at least `kto_negatives` disliked answers; answers liked
                 without a correction are the other side

Below these thresholds the signal is too weak: a handful of disliked answers moves a model away from
them in an arbitrary direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.trainer.data.training_set import PreferencePair, Sample, TrainingSet
from shared.config.training import TrainingConfig
from shared.events import Objective


@dataclass(frozen=True)
class ObjectiveData:
    """Training data by objective: examples for supervised learning, pairs for DPO, judged answers
    for KTO. `rehearsed` is the number of examples that are the base's own answers.
    """

    examples: Sequence[Sample]
    pairs: Sequence[PreferencePair] = ()
    desirable: Sequence[Sample] = ()
    undesirable: Sequence[Sample] = ()
    rehearsed: int = 0

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives whose losses the run adds up."""
        return (
            "supervised",
            *(("dpo",) if self.pairs else ()),
            *(("kto",) if self.undesirable else ()),
        )


def assign_objectives(
    training_set: TrainingSet, rehearsed: Sequence[Sample], config: TrainingConfig
) -> ObjectiveData:
    """Assign a run's examples to objectives, by the rule above."""
    use_dpo = len(training_set.pairs) >= config.dpo_pairs
    use_kto = len(training_set.negatives) >= config.kto_negatives
    return ObjectiveData(
        examples=[*training_set.new, *training_set.replayed, *rehearsed],
        pairs=training_set.pairs if use_dpo else (),
        desirable=training_set.liked if use_kto else (),
        undesirable=training_set.negatives if use_kto else (),
        rehearsed=len(rehearsed),
    )
