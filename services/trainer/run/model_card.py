"""Model card of an adapter, in the format of the Hugging Face hub.

The card counts examples and never quotes one. It is stored next to the adapter but is not covered
by its digest, because a candidate may be evaluated again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from shared.events import BatchReady, CheckpointSaved, TrainingRolledBack, Verdict
from shared.events.hyperparameters import Configuration
from shared.storage.base_projections import describe_counts

_FENCE = "---\n"

_PROMOTED = (
    "The gate found this adapter better than the champion, and not worse on any guarded set."
)
_NOT_PROMOTED = {
    "rejected": "**The gate rejected this adapter: it is worse than the champion. It is kept for "
    "inspection, not for use.**",
    "inconclusive": "**The gate found no sufficient evidence that this adapter is better than the "
    "champion, so it became no version.**",
    "failed": "**The run failed; the adapter was not evaluated.**",
}


def model_card(
    outcome: CheckpointSaved | TrainingRolledBack,
    batch: BatchReady,
    licence: str | None = None,
    adapted: Mapping[str, int] | None = None,
) -> str:
    """Return the card of an evaluated run's adapter. `licence` is that of the base, if known;
    `adapted` is the number of layers by projection.
    """
    parts = [
        _head(outcome, licence),
        _use(outcome),
        _data(outcome, batch),
        _training(outcome.configuration, adapted or {}),
        _gate(outcome),
        _limits(outcome),
    ]
    return "\n".join(parts)


def _head(outcome: CheckpointSaved | TrainingRolledBack, licence: str | None) -> str:
    base = outcome.base or "unknown"
    metadata: dict[str, Any] = {
        "base_model": base.partition("@")[0],
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "ratchet", f"lane:{outcome.lane}"],
    }
    if licence is not None:
        metadata["license"] = licence
    title = f"# {outcome.model}: adapter of run {outcome.run_id}\n"
    return f"{_FENCE}{yaml.safe_dump(metadata, sort_keys=False)}{_FENCE}\n{title}"


def _use(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    return f"""A low-rank adapter that Ratchet trained on {outcome.base} from feedback on answers of
`{outcome.model}`.

## Intended use

Answering prompts of `{outcome.model}`, instead of `{outcome.parent_version}`. The adapter works
only with the exact weights that it was trained on, `{outcome.base_digest}`. It loads with PEFT
alone:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{outcome.base}")
model = PeftModel.from_pretrained(base, "<this folder>")
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
    source = (
        "Feedback of users and checks on earlier answers, with personal data replaced; duplicates "
        "and examples similar to the golden set are left out."
    )
    return f"## Data\n\n{source}\n\n{_table(('', ''), rows)}\n"


def _training(configuration: Configuration, adapted: Mapping[str, int]) -> str:
    rows = [(name, _cell(value)) for name, value in configuration.model_dump(mode="json").items()]
    if adapted:
        rows.append(("adapted projections", describe_counts(adapted)))
    return f"## Training\n\n{_table(('hyper-parameter', ''), rows)}\n"


def _gate(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    summary = _PROMOTED if isinstance(outcome, CheckpointSaved) else _NOT_PROMOTED[outcome.outcome]
    parts = ["## Evaluation", summary]
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
        "Mean log-likelihood per answer token in nats; for `canaries` (regression prompts), the "
        "share that passed.",
        _table(heading, [*compared, *measured]),
    ]
    return [*parts, f"**{verdict.alarm}**"] if verdict.alarm else parts


def _limits(outcome: CheckpointSaved | TrainingRolledBack) -> str:
    return f"""## Limits

- The adapter was evaluated on the sets above only; differences within the intervals show nothing.
- It inherits the base's faults, and it learned from the users' ratings: the influence of a few
  users is limited, their errors are not corrected.
- It was not evaluated on other weights than those above, including their quantised forms.
- Examples may be withdrawn later: ask the registry, not this card, which examples that run
  `{outcome.run_id}` learned from are withdrawn.
"""


def _table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
