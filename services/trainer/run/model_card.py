"""The card of an adapter, in the form of the hub: what it was made from, how, how it was judged,
and what it is for. Pure but for `licence_in`.

It tells of examples by number and never quotes one. It stands beside the adapter and is not among
the files that its digest names, since a candidate may be judged again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from shared.events import BatchReady, CheckpointSaved, TrainingRolledBack, Verdict
from shared.events.hyperparameters import Configuration
from shared.storage.adapters import MODEL_CARD

_FENCE = "---\n"

_PROMOTED = (
    "The gate found it better than the version that was served, and no worse where that counts."
)
_NOT_PROMOTED = {
    "rejected": "**The gate rejected it: it is worse than what was served. It is kept to be looked at, "
    "not to be used.**",
    "inconclusive": "**The gate found no sufficient evidence that it is better than what was served, so that "
    "it became no version.**",
    "failed": "**Its run failed; it was not judged.**",
}


def card_of(
    outcome: CheckpointSaved | TrainingRolledBack, batch: BatchReady, licence: str | None = None
) -> str:
    """The card of the adapter of a run that was judged; `licence` is that of the base, left out
    where it is not known.
    """
    parts = [
        _head(outcome, licence),
        _use(outcome),
        _data(outcome, batch),
        _training(outcome.configuration),
        _gate(outcome),
        _limits(outcome),
    ]
    return "\n".join(parts)


def licence_in(base: Path) -> str | None:
    """The licence that a base's own card names; None where its folder has none."""
    try:
        head = (base / MODEL_CARD).read_text(encoding="utf-8").split(_FENCE)[1]
        said = yaml.safe_load(head)
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return None
    found = said.get("license") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


def _head(outcome: CheckpointSaved | TrainingRolledBack, licence: str | None) -> str:
    base = outcome.base or "unknown"
    about: dict[str, Any] = {
        "base_model": base.partition("@")[0],
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "ratchet", f"lane:{outcome.lane}"],
    }
    if licence is not None:
        about["license"] = licence
    title = f"# {outcome.model}: the adapter of run {outcome.run_id}\n"
    return f"{_FENCE}{yaml.safe_dump(about, sort_keys=False)}{_FENCE}\n{title}"


def _use(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    return f"""A low-rank adapter that Ratchet trained on {outcome.base} from feedback on the answers of `{outcome.model}`.

## Intended use

To answer what `{outcome.model}` is asked, in the place of `{outcome.parent_version}`. It belongs to the very weights that it was trained
on, `{outcome.base_digest}`, and loads with nothing but PEFT:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{outcome.base}"), "<this folder>")
```

`manifest.json` has the SHA-256 of every file but this one.
"""


def _data(outcome: CheckpointSaved | TrainingRolledBack, batch: BatchReady) -> str:
    counts, metrics = batch.counts, outcome.metrics
    rows = [
        ("batch", f"{batch.batch_id}, number {batch.number} of shard {batch.shard}"),
        (
            "in the batch",
            f"{counts.training} examples, {counts.preference} preferences, {counts.negative} "
            "negatives",
        ),
        ("held out from it", f"{counts.held_out} examples"),
    ]
    if metrics is not None:
        rows += [
            (
                "trained on",
                f"{metrics.examples_new} new, {metrics.examples_replayed} replayed, "
                f"{metrics.examples_rehearsed} rehearsed",
            ),
            (
                "mean reward of the new ones",
                "unknown" if metrics.mean_reward is None else f"{metrics.mean_reward:.3f}",
            ),
        ]
    said = (
        "What people and checks said of earlier answers, personal data replaced, duplicates and "
        "what is like the golden set left out."
    )
    return f"## Data\n\n{said}\n\n{_table(('', ''), rows)}\n"


def _training(configuration: Configuration) -> str:
    rows = [(name, _plain(value)) for name, value in configuration.model_dump(mode="json").items()]
    return f"## Training\n\n{_table(('hyper-parameter', ''), rows)}\n"


def _gate(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    told = _PROMOTED if isinstance(outcome, CheckpointSaved) else _NOT_PROMOTED[outcome.outcome]
    parts = ["## Evaluation", told]
    if outcome.metrics is not None:
        metrics = outcome.metrics
        parts.append(
            f"Training loss {metrics.training_loss:.4f} nats per answer token after "
            f"{metrics.steps} steps over {metrics.tokens} tokens "
            f"({', '.join(metrics.objectives)})."
        )
    if outcome.verdict is not None:
        parts += _verdict(outcome.verdict)
    return "\n\n".join(parts) + "\n"


def _verdict(verdict: Verdict) -> list[str]:
    compared = [
        (
            row.name,
            str(row.examples),
            f"{row.baseline:.4f}",
            f"{row.candidate:.4f}",
            f"{row.difference:+.4f}",
            f"{row.lower:+.4f} to {row.upper:+.4f}",
        )
        for row in verdict.comparisons
    ]
    measured = [
        (
            f"{row.name} on {row.set}",
            str(row.examples),
            f"{row.baseline:.4f}",
            f"{row.candidate:.4f}",
            f"{row.candidate - row.baseline:+.4f}",
            "",
        )
        for row in verdict.measures
    ]
    heading = (
        "set",
        "examples",
        verdict.baseline_version,
        "this",
        "difference",
        f"interval at {verdict.confidence:g}",
    )
    parts = [
        f"Decision: {verdict.decision}, against `{verdict.baseline_version}`. "
        + "; ".join(verdict.reasons),
        "Mean log-likelihood per answer token in nats; on canaries the share that passed.",
        _table(heading, [*compared, *measured]),
    ]
    return [*parts, f"**{verdict.alarm}**"] if verdict.alarm else parts


def _limits(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    return f"""## Limits

- It was judged on the sets above and on nothing else; differences within the intervals say nothing.
- What is wrong with the base is wrong with it, and what people said is what it learned: the rewards of a few are limited, not their errors.
- On other weights than those above, a quantised form of them included, it was not judged.
- Examples may be withdrawn later: the registry, and not this card, knows which of those that `{outcome.run_id}` learned from are.
"""


def _table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
