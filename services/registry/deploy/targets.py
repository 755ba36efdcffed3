"""Targets from model files."""

from collections.abc import Mapping, Sequence

import httpx

from services.registry.deploy.folder import Folder
from services.registry.deploy.llamacpp import LlamaCpp
from services.registry.deploy.target import Target
from shared.errors import Misconfigured
from shared.model_file import DeployTarget, Models


def targets_of(models: Models, serving: str, client: httpx.AsyncClient) -> Mapping[str, Sequence[Target]]:
    """The targets of every declared model. Raises Misconfigured for one that cannot be."""
    return {name: [_target(name, declared, serving, client) for declared in file.deploy] for name, file in models.files.items()}


def _target(model: str, declared: DeployTarget, serving: str, client: httpx.AsyncClient) -> Target:
    name = declared.kind if declared.location is None else f"{declared.kind} {declared.location}"
    if declared.kind == "llamacpp":
        return LlamaCpp(declared.location or serving, client, name)
    if declared.kind == "folder" and declared.location is not None:
        return Folder(declared.location, name)
    if declared.kind == "folder":
        raise Misconfigured(f"models/{model}.yaml: a deploy target of kind 'folder' needs a location, the folder to publish into")
    raise Misconfigured(f"models/{model}.yaml: deploy targets of kind {declared.kind!r} do not exist yet; use 'llamacpp' or 'folder'")
