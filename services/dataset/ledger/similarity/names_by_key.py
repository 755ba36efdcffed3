"""Names by the keys that they are indexed by."""

from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

MAX_NAMES = 64
"""Number of names with the same key up to which it says that they are alike."""

Name = TypeVar("Name", int, str)


class NamesByKey(Generic[Name]):
    """Names by key, a single one without a set of its own, to save memory."""

    def __init__(self) -> None:
        self._names: dict[int, Name | set[Name]] = {}

    def names(self, key: int) -> Collection[Name]:
        """Return all names with a key."""
        names = self._names.get(key)
        if names is None:
            return ()
        return names if isinstance(names, set) else (names,)

    def shared(self, keys: Iterable[int]) -> tuple[dict[Name, int], int]:
        """Return the names with any of some keys and their number of these keys, and the number of
        keys that are not common to many names. The others find none.
        """
        # A plain dictionary: a Counter takes twice the time.
        shared: dict[Name, int] = {}
        telling = 0
        for key in set(keys):
            names = self.names(key)
            if len(names) > MAX_NAMES:
                continue
            for name in names:
                shared[name] = shared.get(name, 0) + 1
            telling += 1
        return shared, telling

    def add(self, name: Name, keys: Iterable[int]) -> None:
        for key in keys:
            names = self._names.setdefault(key, name)
            if isinstance(names, set):
                names.add(name)
            elif names != name:
                self._names[key] = {names, name}

    def remove(self, name: Name, keys: Iterable[int]) -> None:
        """Remove a name from some keys. An unknown one is no error."""
        for key in keys:
            names = self._names.get(key)
            if isinstance(names, set):
                names.discard(name)
            if not names or names == name:
                self._names.pop(key, None)
