"""Merge of a base GGUF and a LoRA adapter into one F16 file to serve.

Quantised tensors become F16, since llama.cpp's kernels for quantised weights round activations to 8
bits, and greedy answers would differ from those of the evaluation. Tensors in F32, mostly norms,
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
    """Write `base` to `out` with `adapter`, if any, merged in. `out` appears only when complete.

    Raises ObjectNotFound without the base, InvalidArtefact if base or adapter cannot be merged.
    """
    if not base.is_file():
        raise ObjectNotFound(
            f"base model {base} not found; set RATCHET_BASES to the folder of the base models"
        )
    # Mapped, not read: a tensor is loaded into memory when it is converted. The mapping closes with
    # the last array that views it.
    data = np.memmap(base, np.uint8, "r").data
    layout = read_layout(data)
    return _write(_chunks(data, layout, _deltas(layout, adapter)), out)


def _deltas(layout: GgufLayout, adapter: Adapter | None) -> Mapping[str, LoraDelta]:
    if adapter is None:
        return {}
    prefix = f"{layout.architecture}.attention"
    heads = int(layout.scalars.get(f"{prefix}.head_count", 0))
    deltas = lora_deltas(
        adapter,
        layout.architecture,
        heads,
        int(layout.scalars.get(f"{prefix}.head_count_kv", heads)),
    )
    shapes = {tensor.name: tensor.dims[::-1] for tensor in layout.tensors}
    for name, delta in deltas.items():
        shape = (delta.b.shape[0], delta.a.shape[1])
        if shapes.get(name) != shape:
            raise InvalidArtefact(
                f"the adapter changes {name} of shape {shape}, but the base has "
                f"{shapes.get(name)}: the adapter belongs to another base"
            )
    return deltas


def _chunks(data: ByteView, layout: GgufLayout, deltas: Mapping[str, LoraDelta]) -> Iterator[bytes]:
    """Yield the bytes of the new file, in order."""
    planned, offset = [], 0
    for tensor in layout.tensors:
        kind = tensor.kind if tensor.kind == GGMLQuantizationType.F32 else GGMLQuantizationType.F16
        planned.append(GgufTensor(tensor.name, tensor.dims, kind, offset))
        offset += planned[-1].size + padding(planned[-1].size, layout.alignment)
    yield encode_header(layout, planned, _MOSTLY_F16)
    for tensor, plan in zip(layout.tensors, planned, strict=True):
        yield _tensor_bytes(
            np.frombuffer(data, np.uint8, tensor.size, tensor.offset),
            tensor,
            deltas.get(tensor.name),
        )
        yield bytes(padding(plan.size, layout.alignment))


def _tensor_bytes(raw: npt.NDArray[np.uint8], tensor: GgufTensor, delta: LoraDelta | None) -> bytes:
    if delta is None and tensor.kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        return raw.tobytes()
    shape = tensor.dims[::-1]
    rows = raw.reshape(*shape[:-1], -1)
    try:
        weights = dequantize(rows, tensor.kind).reshape(shape)
    except NotImplementedError as error:
        raise InvalidArtefact(
            f"{tensor.name} of the base has type {tensor.kind.name}, which cannot be dequantised"
        ) from error
    if delta is not None:
        weights = weights + delta.dense
    dtype = np.float32 if tensor.kind == GGMLQuantizationType.F32 else np.float16
    return weights.astype(dtype, copy=False).tobytes()


def _write(chunks: Iterator[bytes], out: Path) -> MergedFile:
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid4().hex}")
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return MergedFile(out, "sha256:" + digest.hexdigest())
