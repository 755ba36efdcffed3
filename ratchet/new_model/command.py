"""`ratchet new`: a model of one's own, ready for `ratchet up`."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import TypeAdapter, ValidationError

from ratchet import console
from ratchet.local_stack.bases import SMOLLM2, prepare_smollm2
from ratchet.new_model.base import check_base
from ratchet.new_model.files import new_files
from ratchet.options import Bases, ModelFiles
from shared.config.model_file import ModelFile
from shared.errors import Misconfigured
from shared.events import Name

new_model = typer.Typer()


@new_model.command("new")
def new(
    model: str,
    base: Annotated[
        str, typer.Option(help="Folder of the base below the bases, or a hub id.")
    ] = SMOLLM2,
    serving: Annotated[
        str | None,
        typer.Option(help="GGUF file of the same weights; default: the only one in the folder."),
    ] = None,
    trusted_user: Annotated[
        list[str] | None,
        typer.Option(help="Member of a small team, as in `user_id`; may be repeated."),
    ] = None,
    folder: ModelFiles = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
) -> None:
    """Write a model file with comments, and the sets that it names, as small examples to replace.

    Checks the base; the small base of the demo is prepared first. Existing files are never changed.
    """
    _require_name(model)
    if base == SMOLLM2 and serving is None:
        if not (bases / base).is_dir():
            console.out.print("preparing the small base, which takes about a minute")
        prepare_smollm2(bases)
    files = new_files(model, check_base(base, serving, bases), trusted_user or ())
    _require_valid(files[f"{model}.yaml"])
    if existing := [str(folder / path) for path in files if (folder / path).exists()]:
        raise Misconfigured(
            f"nothing was written: {', '.join(existing)} exists; move it away or take another name"
        )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
        console.out.print(f"wrote {folder / path}", highlight=False)
    console.out.print(
        f"Replace the examples in {folder / model} by your own, then:\n"
        f"  ratchet models check --models {folder}\n"
        f"  ratchet up --models {folder}",
        highlight=False,
    )


def _require_valid(text: str) -> None:
    """Raise Misconfigured for values of options that a model file may not have."""
    try:
        ModelFile.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise Misconfigured("nothing was written: " + "; ".join(problems)) from error


def _require_name(model: str) -> None:
    try:
        TypeAdapter(Name).validate_python(model)
    except ValidationError as error:
        raise Misconfigured(
            f"{model!r} is no name of a model: expected at most 63 characters from a-z 0-9 . _ -, "
            "the first a letter or digit"
        ) from error
