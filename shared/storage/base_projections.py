"""Projections of a base's decoder layers, and which of them a lane's targets name.

Targets are written with the names of Llama's projections. Some architectures have fused projections
or other names, and some have layers of several kinds; the table below names their counterparts.
Experts, and the towers of a multimodal base for images and sound, are never adapted.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

MAX_HEADER_BYTES = 100 << 20
"""Limit of a header in the safetensors format."""

_PROJECTION = re.compile(r"(?:.*\.)?(?:layers|blocks|h)\.(\d+)\.(.+)")
_EXPERT = re.compile(r"(?:^|\.)experts\.")
_NOT_ADAPTED = re.compile(r"(?:^|\.)(?:experts|mtp)\.|vision|visual|audio")

_QKV, _GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
_FEED_FORWARD = (*_GATE_UP, "down_proj")
_LINEAR_ATTENTION = {
    **{name: (f"self_attn.{name}", "linear_attn.in_proj_qkv") for name in _QKV},
    "o_proj": ("self_attn.o_proj", "linear_attn.out_proj"),
}
_COUNTERPARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "phi3": dict.fromkeys(_QKV, ("qkv_proj",)) | dict.fromkeys(_GATE_UP, ("gate_up_proj",)),
    "phi": {"o_proj": ("dense",), "down_proj": ("fc2",)} | dict.fromkeys(_GATE_UP, ("fc1",)),
    "lfm2": {
        "o_proj": ("self_attn.out_proj",),
        "gate_proj": ("w1",),
        "up_proj": ("w3",),
        "down_proj": ("w2",),
    },
    "qwen3_5_text": _LINEAR_ATTENTION,
    "granitemoehybrid": {"down_proj": ("shared_mlp.output_linear",)}
    | dict.fromkeys(_GATE_UP, ("shared_mlp.input_linear",)),
}
"""By `model_type` of the language model: the ends of the names that a target has there."""


def match_targets(
    projections: Iterable[str],
    model_type: str,
    targets: Sequence[str],
    layers: range | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return the names of the projections that each target names, in all layers or in `layers`.

    `projections` are names of modules with a matrix, and of an architecture's experts. In a mixture
    of experts, the targets of feed-forward layers name nothing: PEFT takes them for all experts.
    """
    names = list(projections)
    is_mixture = any(map(_EXPERT.search, names))
    adaptable = []
    for name in names:
        place = _PROJECTION.fullmatch(name)
        if not place or _NOT_ADAPTED.search(name):
            continue
        if layers is None or int(place[1]) in layers:
            adaptable.append(name)
    counterparts = _COUNTERPARTS.get(model_type, {})
    ends = {
        target: tuple(f".{end}" for end in counterparts.get(target, (target,)))
        for target in targets
        if not (is_mixture and target in _FEED_FORWARD)
    }
    return {
        target: tuple(name for name in adaptable if name.endswith(ends.get(target, ())))
        for target in targets
    }


def layer_counts(projections: Iterable[str]) -> dict[str, int]:
    """Count the layers in which each projection occurs, by its name in a layer, such as
    `self_attn.q_proj`.
    """
    places = {
        (place[2], place[1]) for name in projections if (place := _PROJECTION.fullmatch(name))
    }
    return dict(sorted(Counter(name for name, _ in places).items()))


def describe_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} in {count} layers" for name, count in counts.items())


def read_tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the tensor shapes of a safetensors file from its header: 8 bytes of length,
    little-endian, then JSON. Raises OSError, ValueError.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        return {
            name: tuple(tensor["shape"])
            for name, tensor in header.items()
            if name != "__metadata__" and "shape" in tensor
        }
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"its header is no table of tensors: {error}") from error


def projection_names(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the names of the modules whose weight is a matrix."""
    return [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    ]
