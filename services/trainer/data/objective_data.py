"""How a run learns from what was chosen for it: the rule by which a batch gets its objectives.

    supervised   always: new, replayed and rehearsed examples, weighted by their quality
    dpo          when the batch has `dpo_pairs` corrections with the answer that each of them replaced
    kto          when the batch has `kto_negatives` disliked answers; those that were liked as they were stand on the other side

Fewer than that say too little: a handful of disliked answers moves a model away from them in no
particular direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.trainer.data.training_set import PreferencePair, Sample, TrainingSet
from shared.config.training import TrainingConfig
from shared.events import Objective


@dataclass(frozen=True)
class ObjectiveData:
    """What a run learns: examples as they stand, pairs by DPO, judged answers by KTO."""

    examples: Sequence[Sample]
    pairs: Sequence[PreferencePair] = ()
    desirable: Sequence[Sample] = ()
    undesirable: Sequence[Sample] = ()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the run's loss is the sum of."""
        return (
            "supervised",
            *(("dpo",) if self.pairs else ()),
            *(("kto",) if self.undesirable else ()),
        )


def assign_objectives(
    chosen: TrainingSet, rehearsed: Sequence[Sample], config: TrainingConfig
) -> ObjectiveData:
    """The lessons of a run, by the rule above."""
    by_pairs = len(chosen.pairs) >= config.dpo_pairs
    by_judgement = len(chosen.negatives) >= config.kto_negatives
    return ObjectiveData(
        examples=[*chosen.new, *chosen.replayed, *rehearsed],
        pairs=chosen.pairs if by_pairs else (),
        desirable=chosen.liked if by_judgement else (),
        undesirable=chosen.negatives if by_judgement else (),
    )
