"""Base models on this machine, by name and digest."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from shared.errors import SettingsError
from shared.events import Digest
from shared.identity import digest_of, digest_of_file
from shared.storage.adapters import MODEL_CARD
from shared.storage.object_store import canonical_json

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "README.md"]
"""Files to download from the hub. Weights in other formats are never loaded: some of them contain
code.
"""


@dataclass(frozen=True)
class LocalBase:
    """A base model on this machine. `licence` is None if its model card names none."""

    folder: Path
    name: str
    digest: Digest
    licence: str | None = None


def locate_base(bases: Path, training: str) -> LocalBase:
    """Find the base that a model file's `base.training` names, and compute the digest of its
    weights. Reads every byte of them, and the licence in its model card.

    The digest is that of `model.safetensors`, or of the list of part digests if the weights are in
    several files. Raises SettingsError like `base_folder`, and if the folder has no weights.
    """
    folder = base_folder(bases, training)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise SettingsError(
            f"{folder} contains no base model (*.safetensors); RATCHET_BASES names the folder "
            "of base models"
        )
    digests = {path.name: digest_of_file(path) for path in weights}
    digest = digests[weights[0].name] if len(weights) == 1 else digest_of(canonical_json(digests))
    return LocalBase(folder, training, digest, _licence(folder))


def base_folder(bases: Path, training: str, *, local_only: bool = False) -> Path:
    """Return the folder of a base: the one of that name below `bases`, else the hub's `owner/name`
    or `owner/name@revision`.

    Downloads stay in the hub's cache on this machine and are loaded from there when the network is
    unavailable, or always with `local_only`. Raises SettingsError if neither has the base.
    """
    folder = (bases / training).resolve()
    if folder.is_dir():
        return folder
    name, _, revision = training.partition("@")
    if not HUB_ID.fullmatch(name):
        raise SettingsError(
            f"{folder} is not a folder; RATCHET_BASES names the folder of base models"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=HUB_PATTERNS,
                local_files_only=local_only,
            )
        ).resolve()
    except LocalEntryNotFoundError as error:
        raise SettingsError(
            f"{training} is neither a folder below {bases} nor in the hub's cache on this "
            "machine, and the hub cannot be reached: "
            "put the model's folder there, or download it once with network access"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise SettingsError(
            f"{training} is not a folder below {bases}, and the hub cannot provide it: {error}"
        ) from error


def _licence(folder: Path) -> str | None:
    try:
        head = (folder / MODEL_CARD).read_text(encoding="utf-8").split("---\n")[1]
        metadata = yaml.safe_load(head)
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return None
    licence = metadata.get("license") if isinstance(metadata, dict) else None
    return licence if isinstance(licence, str) else None
