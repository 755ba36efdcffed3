"""Names in the object store that no file system resolves to another place."""

from typing import Annotated

from pydantic import AfterValidator

from shared.errors import ContractViolation, InvalidArtefact
from shared.events import Artefact, Event

_MAX_KEY = 1024
_MAX_NAME_BYTES = 255


def _checked_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError("is not a plain file name")
    if len(name.encode(errors="surrogatepass")) > _MAX_NAME_BYTES:
        raise ValueError(f"has more than {_MAX_NAME_BYTES} bytes")
    return name


FileName = Annotated[str, AfterValidator(_checked_name)]
"""A file in a folder of the object store."""


def require_key(key: str) -> None:
    """Raise InvalidArtefact for a key that is not inside the object store, or too long for one."""
    try:
        if len(key) > _MAX_KEY:
            raise ValueError(f"has more than {_MAX_KEY} characters")
        for name in key.split("/"):
            _checked_name(name)
    except ValueError as error:
        raise InvalidArtefact(
            f"{key[:_MAX_KEY]!r} is no key of the object store: a part {error}"
        ) from error


def require_artefacts(event: Event) -> None:
    """Raise ContractViolation for an event with an artefact that is not inside the object store.

    The event types accept it: what has been stored before stays readable.
    """
    for name, value in event:
        if isinstance(value, Artefact):
            try:
                require_key(value.uri)
            except InvalidArtefact as error:
                raise ContractViolation(str(error), f"{name}.uri") from error
