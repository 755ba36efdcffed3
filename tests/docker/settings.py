"""The variables that services and commands read."""

from collections.abc import Mapping

from services.dataset.settings import DatasetSettings
from services.feedback.settings import FeedbackSettings
from services.registry.settings import RegistrySettings
from services.trainer.settings import TrainerSettings
from shared.config.settings import PREFIX, ServiceSettings

_SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "feedback": FeedbackSettings,
    "dataset": DatasetSettings,
    "trainer": TrainerSettings,
    "registry": RegistrySettings,
}

OF_SERVICES = {
    f"services.{name}": frozenset(PREFIX + field.upper() for field in settings.model_fields)
    for name, settings in _SETTINGS.items()
}
"""By the module that reads them."""

KNOWN = frozenset().union(*OF_SERVICES.values())
