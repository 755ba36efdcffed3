"""Examples of an import that later ones are compared with, in a temporary file."""

import weakref
import zlib
from tempfile import TemporaryFile

from pydantic_core import from_json, to_json

from services.dataset.ledger.similarity.compared_example import ComparedExample


class ComparedFile:
    """Examples by name: their texts are on disk, their places in memory. The file has no name, and
    is gone with the object or the process.
    """

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 (closed with the object)
        weakref.finalize(self, self._file.close)
        self._places: dict[str, int] = {}
        self._end = 0

    def __setitem__(self, name: str, example: ComparedExample) -> None:
        data = zlib.compress(to_json((example.prompt, example.answer, example.is_correction)))
        self._file.seek(self._end)
        self._file.write(len(data).to_bytes(4) + data)
        self._places[name] = self._end
        self._end += 4 + len(data)

    def __getitem__(self, name: str) -> ComparedExample:
        self._file.seek(self._places[name])
        size = int.from_bytes(self._file.read(4))
        return ComparedExample(*from_json(zlib.decompress(self._file.read(size))))
