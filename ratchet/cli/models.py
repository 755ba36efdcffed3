"""`ratchet models`: validate model files."""

from pathlib import Path

import typer

from ratchet import console
from ratchet.options import Json, ModelFiles
from shared.config.curation import CurationSettings
from shared.config.models import load_models

models = typer.Typer(no_args_is_help=True, help="Validate model files.")


@models.command("check")
def models_check(folder: ModelFiles = Path("models"), json: Json = False) -> None:
    """Validate every model file and its evaluation sets; show reward and redaction policies, and
    warn if few users cannot fill a batch.
    """
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
            "users_needed": 1 if file.curation.trusted_users else file.curation.users_needed,
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
        if warning := small_team_warning(file.curation):
            console.out.print(f"{name}: warning: {warning}", highlight=False)


def small_team_warning(curation: CurationSettings) -> str | None:
    """Return a warning about feedback of few users, of which the limits keep a batch from filling;
    None if any number of users can fill one.
    """
    if curation.trusted_users or curation.users_needed == 1:
        return None
    return (
        f"batches fill only with the feedback of {curation.users_needed} or more users, because "
        f"the examples of each are limited (examples_per_user: {curation.examples_per_user}, "
        f"user_share: {curation.user_share:g}); for a smaller team, list its members in "
        "curation.trusted_users"
    )
