"""Environment variables of a dataset import."""

from shared.config.settings import ServiceSettings
from shared.failpoints import FailpointSetting
from shared.redaction.settings import NameRedactionSettings


class BuildSettings(ServiceSettings, NameRedactionSettings):
    """Settings of one import."""

    failpoints: FailpointSetting = ()
