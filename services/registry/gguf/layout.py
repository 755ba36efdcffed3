"""Layout of a GGUF file, as far as a merge needs it: the metadata as one block of bytes, and the
offset of each tensor.

Parsed here because the `gguf` package parses every token of the vocabulary into objects, which
takes as long as the merge itself. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from shared.errors import InvalidArtefact

# A string: at run time `memoryview` takes no parameter before Python 3.14.
ByteView: TypeAlias = "memoryview[int]"

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. `dims` has the fastest-varying dimension first, as in the format; `offset`
    counts from the beginning of the file.
    """

    name: str
    dims: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int

    @property
    def size(self) -> int:
        """Size in bytes."""
        block, bytes_of_block = GGML_QUANT_SIZES[self.kind]
        elements = 1
        for dim in self.dims:
            elements *= dim
        return elements // block * bytes_of_block


@dataclass(frozen=True)
class GgufLayout:
    """Contents of a GGUF file. `metadata` is the file's block of key-value pairs, unchanged.

    `scalars` holds the values that are not arrays; `value_offsets` the offset of each value within
    `metadata`.
    """

    version: int
    metadata: bytes
    pair_count: int
    scalars: Mapping[str, Any]
    value_offsets: Mapping[str, int]
    tensors: tuple[GgufTensor, ...]

    @property
    def alignment(self) -> int:
        return int(self.scalars.get("general.alignment", _DEFAULT_ALIGNMENT))

    @property
    def architecture(self) -> str:
        return str(self.scalars.get("general.architecture", ""))

    def array_string(self, key: str, index: int) -> str:
        """Return one item of an array of strings; empty if there is no such array or item."""
        at = self.value_offsets.get(key)
        data = memoryview(self.metadata)
        if (
            at is None
            or struct.unpack_from("<I", data, at)[0] != _STRING
            or index >= struct.unpack_from("<Q", data, at + 4)[0]
        ):
            return ""
        text, at = _string(data, at + 12)
        for _ in range(index):
            text, at = _string(data, at)
        return text


def read_layout(data: ByteView) -> GgufLayout:
    """Parse a whole file. Raises InvalidArtefact unless it is GGUF of version 2 or 3."""
    try:
        return _read(data)
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise InvalidArtefact(f"not a GGUF file: {error}") from error


def encode_header(layout: GgufLayout, tensors: Sequence[GgufTensor], file_type: int) -> bytes:
    """Return the header of a file with the same metadata, padded to the beginning of its data.

    `tensors` are in the order of their data, with offsets relative to it. `general.file_type` is
    set if the metadata has it.
    """
    metadata = bytearray(layout.metadata)
    if "general.file_type" in layout.value_offsets:
        struct.pack_into("<I", metadata, layout.value_offsets["general.file_type"], file_type)
    parts = [
        _MAGIC,
        struct.pack("<IQQ", layout.version, len(tensors), layout.pair_count),
        bytes(metadata),
    ]
    for tensor in tensors:
        name = tensor.name.encode()
        dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
        parts.append(
            struct.pack("<Q", len(name))
            + name
            + dims
            + struct.pack("<IQ", int(tensor.kind), tensor.offset)
        )
    header = b"".join(parts)
    return header + bytes(padding(len(header), layout.alignment))


def padding(size: int, alignment: int) -> int:
    """Return the number of bytes from `size` to the next multiple of `alignment`."""
    return -size % alignment


def _read(data: ByteView) -> GgufLayout:
    version, count, pairs = struct.unpack_from("<IQQ", data, 4)
    if (magic := bytes(data[:4])) != _MAGIC or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r}, version {version}")
    at = begin = 24
    scalars: dict[str, Any] = {}
    value_offsets: dict[str, int] = {}
    for _ in range(pairs):
        key, at = _string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        value_offsets[key] = at + 4 - begin
        value, at = _value(data, at + 4, kind)
        if value is not None:
            scalars[key] = value
    metadata = bytes(data[begin:at])
    descriptions: list[tuple[str, tuple[int, ...], GGMLQuantizationType, int]] = []
    for _ in range(count):
        name, at = _string(data, at)
        (rank,) = struct.unpack_from("<I", data, at)
        *dims, kind, offset = struct.unpack_from(f"<{rank}QIQ", data, at + 4)
        at += 4 + 8 * rank + 12
        descriptions.append((name, tuple(dims), GGMLQuantizationType(kind), offset))
    data_begins = at + padding(at, int(scalars.get("general.alignment", _DEFAULT_ALIGNMENT)))
    tensors = tuple(
        GgufTensor(name, dims, kind, data_begins + offset)
        for name, dims, kind, offset in descriptions
    )
    return GgufLayout(version, metadata, pairs, scalars, value_offsets, tensors)


def _string(data: ByteView, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    return bytes(data[at + 8 : end]).decode(), end


def _value(data: ByteView, at: int, kind: int) -> tuple[Any, int]:
    """Return a scalar or string and its end; None for an array, which is skipped."""
    if kind == _STRING:
        return _string(data, at)
    if kind != _ARRAY:
        form = _SCALARS[kind]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    item, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if item == _STRING:
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(length):
            at += 8 + unpack(data, at)[0]
        return None, at
    if item == _ARRAY:
        for _ in range(length):
            _, at = _value(data, at, _ARRAY)
        return None, at
    return None, at + length * struct.calcsize(_SCALARS[item])
