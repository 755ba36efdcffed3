"""The environment variables that services read."""

from collections.abc import Mapping

from services.dataset.builder.settings import BuilderSettings
from services.dataset.settings import DatasetSettings
from services.feedback.settings import FeedbackSettings
from services.registry.settings import RegistrySettings
from services.trainer.settings import TrainerSettings
from shared.config.settings import PREFIX, ServiceSettings

_SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "feedback": FeedbackSettings,
    "dataset": DatasetSettings,
    "builder": BuilderSettings,
    "trainer": TrainerSettings,
    "registry": RegistrySettings,
}

VARIABLES_BY_MODULE = {
    f"services.{name}": frozenset(PREFIX + field.upper() for field in settings.model_fields)
    for name, settings in _SETTINGS.items()
}
"""Variables by the module that reads them."""

ALL_VARIABLES = frozenset().union(*VARIABLES_BY_MODULE.values())
