"""The base models of this machine, by name and digest."""

from dataclasses import dataclass
from pathlib import Path

from shared.errors import SettingsError
from shared.events import Digest
from shared.identity import digest_of, digest_of_file
from shared.storage import canonical_json


@dataclass(frozen=True)
class Base:
    """A base model on this machine."""

    folder: Path
    name: str
    digest: Digest


def locate(bases: Path, training: str) -> Base:
    """The base that a model file's `base.training` names, and the digest of its weights; reads every byte of them.

    The digest is that of `model.safetensors`, or of the list of its parts' digests where the weights are in several.
    Raises SettingsError when there is no such folder or no weights are in it.
    """
    folder = (bases / training).resolve()
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise SettingsError(f"{folder} holds no base model (*.safetensors); RATCHET_BASES names the folder of base models")
    digests = {path.name: digest_of_file(path) for path in weights}
    whole = digests[weights[0].name] if len(weights) == 1 else digest_of(canonical_json(digests))
    return Base(folder, training, whole)
