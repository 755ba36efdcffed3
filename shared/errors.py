"""Exceptions that Ratchet raises on purpose. The branch of the tree names the reaction of the
caller.

RatchetError
├── Unprocessable        dead-letter the message with its position and the reason, then continue
│   ├── Undecodable          the bytes are not an event
│   ├── ContractViolation    an event with an invalid field
│   ├── UnknownModel         an event for a model that no model file declares
│   └── TooLarge             the resulting event exceeds the record size limit
├── Unavailable          retry with back-off, then stop without committing
│   ├── BusUnavailable
│   └── StorageUnavailable
├── InvalidArtefact      refuse the object; a retry does not help
│   ├── ObjectNotFound       the object does not exist
│   └── DigestMismatch       the bytes do not match the announced digest
├── PartitionLost        skip the record without a commit; its partition has another owner
├── Misconfigured        stop at start; an operator has to change the configuration
│   ├── SettingsError        an environment variable
│   └── ModelFileError       a line of a model file
└── CommandRefused       report to the caller; the command changed nothing
"""


class RatchetError(Exception):
    """Root of the exception tree; never raised itself."""


class Unprocessable(RatchetError):
    """A message that no retry can fix.

    `field` is a dotted path into the message, empty when the whole message is at fault.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.reason = reason
        self.field = field


class Undecodable(Unprocessable):
    """Bytes that are not an event in any accepted encoding."""


class ContractViolation(Unprocessable):
    """An event with a field that its contract does not allow."""


class UnknownModel(Unprocessable):
    """An event for a model that no model file declares."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"no model file declares {model!r}; add models/{model}.yaml or correct the event",
            "model",
        )


class TooLarge(Unprocessable):
    """An event that exceeds the maximum record size."""


class Unavailable(RatchetError):
    """A dependency that does not respond at present."""


class BusUnavailable(Unavailable):
    """Kafka did not accept or deliver a record in time."""


class StorageUnavailable(Unavailable):
    """The object store did not accept or return an object."""


class InvalidArtefact(RatchetError):
    """An object that cannot be used as announced."""


class ObjectNotFound(InvalidArtefact):
    """An object that does not exist where it was announced."""


class DigestMismatch(InvalidArtefact):
    """Bytes that do not match the announced digest."""

    def __init__(self, name: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{name} has digest {actual}, expected {expected}: it was altered or cut off; "
            "nothing was used of it"
        )
        self.expected = expected
        self.actual = actual


class PartitionLost(RatchetError):
    """A record whose handling was abandoned because its partition moved to another group member.

    The new owner receives the record again.
    """


class Misconfigured(RatchetError):
    """A configuration error that an operator has to fix before the process can start."""


class SettingsError(Misconfigured):
    """A missing or invalid setting; the message names the variable and the expected value."""


class ModelFileError(Misconfigured):
    """An invalid model file; the message names file, line and field."""


class CommandRefused(RatchetError):
    """A command that refers to something missing or ambiguous, or would overwrite something.

    The message says what to enter instead.
    """
