"""A version as one file to serve: the base GGUF with the adapter merged in, in F16.

Quantised tensors become F16, since llama.cpp's kernels for quantised weights round activations to 8
bits, and greedy answers would not be those of the evaluation. Tensors in F32, the norms above all,
stay as they are.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from services.registry.gguf.layout import (
    ByteView,
    GgufLayout,
    GgufTensor,
    encode_header,
    padding,
    read_layout,
)
from services.registry.gguf.lora_delta import LoraDelta, lora_deltas
from shared.errors import InvalidArtefact, ObjectNotFound
from shared.events import Digest
from shared.storage.adapters import Adapter

_MOSTLY_F16 = 1  # `general.file_type`, LLAMA_FTYPE_MOSTLY_F16


@dataclass(frozen=True, slots=True)
class MergedFile:
    """A file to serve."""

    path: Path
    digest: Digest


def merge(base: Path, adapter: Adapter | None, out: Path) -> MergedFile:
    """Write `base` with `adapter` merged in, or as it is without one, to `out`, as a whole or not
    at all.

    Raises Missing without the base, Unusable when base or adapter cannot be merged.
    """
    if not base.is_file():
        raise ObjectNotFound(
            f"the base model {base} is not there; RATCHET_BASES names the folder that it is "
            "looked for in"
        )
    # Mapped, not read: weights come into memory when their turn comes. The map closes with the last
    # array that looks into it.
    data = np.memmap(base, np.uint8, "r").data
    layout = read_layout(data)
    return _write(_chunks(data, layout, _deltas(layout, adapter)), out)


def _deltas(layout: GgufLayout, adapter: Adapter | None) -> Mapping[str, LoraDelta]:
    if adapter is None:
        return {}
    prefix = f"{layout.architecture}.attention"
    heads = int(layout.scalars.get(f"{prefix}.head_count", 0))
    changes = lora_deltas(
        adapter,
        layout.architecture,
        heads,
        int(layout.scalars.get(f"{prefix}.head_count_kv", heads)),
    )
    shapes = {tensor.name: tensor.dims[::-1] for tensor in layout.tensors}
    for name, change in changes.items():
        shape = (change.b.shape[0], change.a.shape[1])
        if shapes.get(name) != shape:
            raise InvalidArtefact(
                f"the adapter changes {name} of shape {shape}, the base has "
                f"{shapes.get(name)}: it belongs to another base"
            )
    return changes


def _chunks(
    data: ByteView, layout: GgufLayout, changes: Mapping[str, LoraDelta]
) -> Iterator[bytes]:
    """The bytes of the new file, in order."""
    planned, start = [], 0
    for tensor in layout.tensors:
        kind = tensor.kind if tensor.kind == GGMLQuantizationType.F32 else GGMLQuantizationType.F16
        planned.append(GgufTensor(tensor.name, tensor.dims, kind, start))
        start += planned[-1].size + padding(planned[-1].size, layout.alignment)
    yield encode_header(layout, planned, _MOSTLY_F16)
    for tensor, plan in zip(layout.tensors, planned, strict=True):
        content = _tensor_bytes(
            np.frombuffer(data, np.uint8, tensor.size, tensor.offset),
            tensor,
            changes.get(tensor.name),
        )
        yield content
        yield bytes(padding(plan.size, layout.alignment))


def _tensor_bytes(
    raw: npt.NDArray[np.uint8], tensor: GgufTensor, change: LoraDelta | None
) -> bytes:
    if change is None and tensor.kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        return raw.tobytes()
    shape = tensor.dims[::-1]
    rows = raw.reshape(*shape[:-1], -1)
    try:
        weights = dequantize(rows, tensor.kind).reshape(shape)
    except NotImplementedError as error:
        raise InvalidArtefact(
            f"{tensor.name} of the base is in {tensor.kind.name}, which cannot be dequantised"
        ) from error
    if change is not None:
        weights = weights + change.dense
    wanted = np.float32 if tensor.kind == GGMLQuantizationType.F32 else np.float16
    return weights.astype(wanted, copy=False).tobytes()


def _write(pieces: Iterator[bytes], out: Path) -> MergedFile:
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{uuid4().hex}")
    digest = hashlib.sha256()
    try:
        with beside.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return MergedFile(out, "sha256:" + digest.hexdigest())
