"""Table of the tested architectures in docs/bases.md: `python -m tests.bases.matrix` writes it.

Every row is held by `test_targets` and `test_parity`.
"""

from pathlib import Path

import torch

from services.trainer.training.attention import attention_implementation
from shared.events.hyperparameters import ATTENTION_PROJECTIONS
from shared.storage.base_projections import layer_counts, match_targets
from tests.bases.architectures import ARCHITECTURES, frozen_model, tiny_config

PAGE = Path("docs/bases.md")
START, END = "<!-- the tested architectures: -->\n", "<!-- end -->\n"
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_HEADING = (
    "| architecture | attention | feed-forward | implementation of attention |\n|---|---|---|---|\n"
)


def table() -> str:
    """Return the rows: what the usual targets reach in each architecture."""
    return _HEADING + "".join(map(_row, ARCHITECTURES))


def _row(architecture: str) -> str:
    config = tiny_config(architecture)
    model = frozen_model(config)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    names += [name for name, weight in model.named_parameters() if weight.ndim == 3]
    reached = []
    for targets in (ATTENTION_PROJECTIONS, _FEED_FORWARD):
        matched = match_targets(names, config.model_type, targets).values()
        counts = layer_counts(name for found in matched for name in found)
        ends = [f"`{name.rpartition('.')[2]}`" for name in counts]
        reached.append(", ".join(ends) or "refused")
    implementation = attention_implementation(config) or "default"
    return f"| `{architecture}` | {' | '.join(reached)} | {implementation} |\n"


def written() -> str:
    """Return the table that the page has."""
    return PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
