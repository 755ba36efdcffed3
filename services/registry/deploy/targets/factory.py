"""Construction of targets from model files."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import ollama

from services.registry.deploy.targets.folder import FolderTarget
from services.registry.deploy.targets.llamacpp import LlamaCppTarget
from services.registry.deploy.targets.ollama import OllamaTarget
from services.registry.deploy.targets.target import ServingTarget
from services.registry.settings import RegistrySettings
from shared.config.model_file import DeployTarget, ModelFile
from shared.config.models import Models
from shared.errors import Misconfigured


@asynccontextmanager
async def open_targets(
    models: Models, settings: RegistrySettings
) -> AsyncIterator[Mapping[str, Sequence[ServingTarget]]]:
    """Yield the targets of every declared model; their HTTP clients close at the end of the body.
    Raises Misconfigured for an invalid declaration.
    """
    async with AsyncExitStack() as clients:
        client = await clients.enter_async_context(httpx.AsyncClient())

        async def target(file: ModelFile, declared: DeployTarget) -> ServingTarget:
            model, template = file.model, file.template_variables
            name = (
                declared.kind
                if declared.location is None
                else f"{declared.kind} {declared.location}"
            )
            if declared.kind == "folder":
                return FolderTarget(_folder(model, declared), name)
            if declared.kind == "llamacpp":
                location = _url(model, declared, settings.serving)
                tokens = settings.serving_tokens_file
                return LlamaCppTarget(location, client, name, tokens, template)
            location = _url(model, declared, settings.ollama)
            api = await clients.enter_async_context(ollama.AsyncClient(location))
            context, threads = settings.ollama_context, settings.ollama_threads
            return OllamaTarget(location, client, api, context, threads, name, template)

        yield {
            model: [await target(file, declared) for declared in file.deploy]
            for model, file in models.files.items()
        }


def _folder(model: str, declared: DeployTarget) -> str:
    if declared.location is None:
        raise Misconfigured(
            f"models/{model}.yaml: a deploy target of kind 'folder' needs a location, the "
            "folder to publish into"
        )
    return declared.location


def _url(model: str, declared: DeployTarget, default: str) -> str:
    location = declared.location or default
    if not location.startswith(("http://", "https://")):
        raise Misconfigured(
            f"models/{model}.yaml: the location of a {declared.kind!r} target must be a URL, "
            f"http://host:port, not {location!r}"
        )
    return location
