"""Every error that Ratchet raises on purpose. The branch says what the caller does about it.

RatchetError ├── Unprocessable        dead-letter: this message can never be processed; say where
and why, go on │   ├── Undecodable          not the bytes of an event │   ├── ContractViolation
an event, but a field of it is wrong │   ├── UnknownModel         an event for a model that no model
file declares │   └── TooLarge             what would follow from it is larger than the bus takes
├── Unavailable          retry with back-off, then stop without committing: something outside is
away │   ├── BusUnavailable │   └── StorageUnavailable ├── Unusable             refuse: an object is
not what its claim says; no retry mends it │   ├── Missing              it is not there │   └──
Corrupt              its bytes are not those that its digest names ├── Forgone              leave
it, uncommitted: the record is another member's by now ├── Misconfigured        stop at start: a
person has to change something │   ├── SettingsError        an environment variable │   └──
ModelFileError       a line of a model file └── Declined             tell who asked: a command
cannot do this, and has changed nothing
"""


class RatchetError(Exception):
    """The root of the tree above; never raised itself."""


class Unprocessable(RatchetError):
    """A message that no retry can mend. `field` is a dotted path into it, empty when the whole is
    at fault.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.reason = reason
        self.field = field


class Undecodable(Unprocessable):
    """Bytes that are not an event in any accepted form."""


class ContractViolation(Unprocessable):
    """An event with a field that its contract does not allow."""


class UnknownModel(Unprocessable):
    """An event for a model that is not declared."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"no model file declares {model!r}; add models/{model}.yaml or correct the event",
            "model",
        )


class TooLarge(Unprocessable):
    """An event that is larger than a record may be."""


class Unavailable(RatchetError):
    """Something outside does not answer at present."""


class BusUnavailable(Unavailable):
    """Kafka did not take or give a record in time."""


class StorageUnavailable(Unavailable):
    """The object store did not take or give an object."""


class InvalidArtefact(RatchetError):
    """An object that cannot be used as announced."""


class ObjectNotFound(InvalidArtefact):
    """An object that is not where it was announced."""


class DigestMismatch(InvalidArtefact):
    """Bytes that do not match the digest they were announced with."""

    def __init__(self, name: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{name} has digest {actual}, expected {expected}: it was altered or cut off; "
            "nothing was used of it"
        )
        self.expected = expected
        self.found = actual


class PartitionLost(RatchetError):
    """A record that was not brought to its end because its partition has gone to another member,
    which gets it again.
    """


class Misconfigured(RatchetError):
    """Something that a person has to change before the process can start."""


class SettingsError(Misconfigured):
    """A setting is missing or wrong; the message names the variable and what was expected."""


class ModelFileError(Misconfigured):
    """A model file is wrong; the message names file, line and field."""


class CommandRefused(RatchetError):
    """A command was asked for what is not there, is not one thing, or would be overwritten; the
    message says what to ask for instead.
    """
