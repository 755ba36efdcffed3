"""`ratchet models`: validate model files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ratchet import console
from ratchet.cli.doctor import check_rehearsal, check_trainer
from ratchet.cli.effective_settings import print_lane_reports, read_lane_reports
from ratchet.options import Json, ModelFiles
from shared.config.curation import CurationSettings
from shared.config.models import Models, load_models
from shared.machine_check import Check, has_problem

BasesToCheck = Annotated[
    Path | None, typer.Option("--bases", help="Folder of base models, to check the bases as well.")
]

models = typer.Typer(no_args_is_help=True, help="Validate model files.")


@models.command("check")
def models_check(
    folder: ModelFiles = Path("models"), bases: BasesToCheck = None, json: Json = False
) -> None:
    """Validate every model file and its sets; show reward and redaction policies, and the effective
    settings of each lane with their reasons and the time and memory of a run.

    Warns if few users cannot fill a batch, or if rehearsed prompts are evaluated. With --bases,
    checks the bases as well, and exits with 1 if one cannot be used.
    """
    declared = load_models(folder)
    found = check_rehearsal(declared)
    found += [] if bases is None else base_checks(folder, bases)
    reports, failure = read_lane_reports(folder, bases)
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
            "base": [check.model_dump() for check in found if check.name == f"{name}/base"],
            "rehearsal": [
                check.model_dump()
                for check in found
                if check.name.startswith(f"{name}/") and check.name.endswith("/rehearsal")
            ],
            "lanes": [report.model_dump() for report in reports if report.model == name],
        }
        for name, file in declared.files.items()
    ]
    if json:
        console.print_json(rows)
    else:
        _print(declared, rows, found)
        print_lane_reports(reports)
        if failure:
            console.print_text(f"no effective settings: {failure}")
    if has_problem(found):
        raise typer.Exit(1)


def _print(declared: Models, rows: Sequence[Mapping[str, object]], found: Sequence[Check]) -> None:
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
    for check in found:
        advice = f"; {check.advice}" if check.advice else ""
        console.out.print(f"{check.name}: {check.state}: {check.found}{advice}", highlight=False)


def base_checks(folder: Path, bases: Path) -> list[Check]:
    """Return the checks of the models' bases, and of lanes whose base or targets are missing."""
    checks = check_trainer(folder, bases)
    lanes = {row.name for row in checks if row.state == "problem" and "/" in row.name}
    return [row for row in checks if row.name.endswith("/base") or row.name in lanes]


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
