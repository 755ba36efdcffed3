"""The base models of this machine, by name and digest."""

import re
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SettingsError
from shared.events import Digest
from shared.identity import digest_of, digest_of_file
from shared.storage.object_store import canonical_json

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "README.md"]
"""Files of a model on the hub; weights in other formats are never loaded: some of them are code."""


@dataclass(frozen=True)
class LocalBase:
    """A base model on this machine."""

    folder: Path
    name: str
    digest: Digest


def locate_base(bases: Path, training: str) -> LocalBase:
    """The base that a model file's `base.training` names, and the digest of its weights; reads
    every byte of them.

    The digest is that of `model.safetensors`, or of the list of its parts' digests where the
    weights are in several. Raises SettingsError as `folder_of`, and when no weights are there.
    """
    folder = base_folder(bases, training)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise SettingsError(
            f"{folder} holds no base model (*.safetensors); RATCHET_BASES names the folder "
            "of base models"
        )
    digests = {path.name: digest_of_file(path) for path in weights}
    whole = digests[weights[0].name] if len(weights) == 1 else digest_of(canonical_json(digests))
    return LocalBase(folder, training, whole)


def base_folder(bases: Path, training: str) -> Path:
    """The folder of a base: the one of that name below `bases`, else the hub's `owner/name` or
    `owner/name@revision`.

    What was loaded from the hub stays in the hub's own cache on this machine, and is taken from
    there where the network is away. Raises SettingsError when there is neither.
    """
    folder = (bases / training).resolve()
    if folder.is_dir():
        return folder
    name, _, revision = training.partition("@")
    if not HUB_ID.fullmatch(name):
        raise SettingsError(f"{folder} is no folder; RATCHET_BASES names the folder of base models")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=HUB_PATTERNS)
        ).resolve()
    except LocalEntryNotFoundError as error:
        raise SettingsError(
            f"{training} is neither a folder below {bases} nor in the hub's cache on this "
            "machine, and the hub cannot be reached: "
            "put the model's folder there, or load it once where the network allows"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise SettingsError(
            f"{training} is no folder below {bases}, and the hub does not give it: {error}"
        ) from error
