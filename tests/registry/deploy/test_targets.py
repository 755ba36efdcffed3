"""Construction of targets from model files and settings."""

from pathlib import Path

import pytest

from services.registry.deploy.targets.factory import open_targets
from services.registry.settings import RegistrySettings
from shared.config.model_file import DeployTarget
from shared.config.models import Models
from shared.errors import Misconfigured
from tests.support.registry_events import MODEL


def _models(*targets: DeployTarget) -> Models:
    return Models({"support": MODEL.model_copy(update={"deploy": targets})}, Path())


async def test_every_target_kind_has_its_event_name() -> None:
    models = _models(
        DeployTarget(kind="llamacpp"),
        DeployTarget(kind="ollama"),
        DeployTarget(kind="ollama", location="http://10.0.0.7:11434"),
        DeployTarget(kind="folder", location="/srv/models"),
    )
    async with open_targets(models, RegistrySettings()) as targets:
        served_names = {target.name: target.served_name("support") for target in targets["support"]}
    assert served_names == {
        "llamacpp": "support",
        "ollama": "support:champion",
        "ollama http://10.0.0.7:11434": "support:champion",
        "folder /srv/models": "/srv/models/support/champion",
    }


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (DeployTarget(kind="folder"), "needs a location"),
        (DeployTarget(kind="ollama", location="10.0.0.7:11434"), "http://host:port"),
        (DeployTarget(kind="llamacpp", location="/srv/models"), "http://host:port"),
    ],
)
async def test_invalid_target_names_the_file_to_correct(
    declared: DeployTarget, message: str
) -> None:
    with pytest.raises(Misconfigured, match=rf"models/support\.yaml: .*{message}"):
        async with open_targets(_models(declared), RegistrySettings()):
            pass
