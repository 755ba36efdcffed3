"""`ratchet models`: validate model files."""

from pathlib import Path

import typer

from ratchet import console
from ratchet.options import Json, ModelFiles
from shared.config.models import load_models

models = typer.Typer(no_args_is_help=True, help="Validate model files.")


@models.command("check")
def models_check(folder: ModelFiles = Path("models"), json: Json = False) -> None:
    """Validate every model file and its evaluation sets; show reward and redaction policies."""
    declared = load_models(folder)
    rows = [
        {
            "model": name,
            "digest": file.digest,
            "golden": len(declared.golden(name)),
            "retention": len(declared.regression_set(name)),
            "canaries": len(declared.regression_prompts(name)),
            "reward": file.reward.model_dump(mode="json"),
            "redaction": file.redaction.model_dump(mode="json"),
        }
        for name, file in declared.files.items()
    ]
    if json:
        console.print_json(rows)
        return
    keys = ("model", "digest", "golden", "retention", "canaries")
    console.print_table(
        ("model", "digest", "golden set", "regression set", "regression prompts"),
        [[str(row[key])[:19] for key in keys] for row in rows],
    )
    for name, file in declared.files.items():
        console.out.print(
            f"{name}: {file.reward.summary}; {file.redaction.summary}", highlight=False
        )
