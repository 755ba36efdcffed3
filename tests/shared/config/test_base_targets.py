"""Targets of a lane against the headers of a base's weight files."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.config.base_targets import require_targets
from shared.config.model_file import ModelFile
from shared.errors import Misconfigured

FILE = ModelFile.model_validate(
    {
        "model": "support",
        "base": {"training": "base", "serving": "base.gguf"},
        "lanes": {"master": {"training": {"targets": ["q_proj", "v_proj"]}}},
    }
)


def write_base(bases: Path, *parts: dict[str, Any]) -> None:
    (bases / "base").mkdir()
    for number, header in enumerate(parts):
        data = json.dumps(header).encode()
        path = bases / "base" / f"model-{number}.safetensors"
        path.write_bytes(len(data).to_bytes(8, "little") + data)


def tensor(name: str, *shape: int) -> dict[str, Any]:
    return {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}}


def test_projections_of_all_parts_count(tmp_path: Path) -> None:
    write_base(
        tmp_path,
        tensor("model.layers.0.self_attn.q_proj.weight", 4, 4) | {"__metadata__": {"a": "b"}},
        tensor("model.layers.1.self_attn.v_proj.weight", 4, 4),
    )
    require_targets(FILE, FILE.lanes["master"].training, tmp_path)


def test_a_target_that_the_base_lacks_is_named(tmp_path: Path) -> None:
    write_base(
        tmp_path,
        tensor("model.layers.0.self_attn.q_proj.weight", 4, 4)
        | tensor("model.layers.0.v_proj.weight", 4)
        | tensor("v_proj.weight", 4, 4)
        | tensor("model.layers.0.mlp.up_proj.weight", 4, 4),
    )
    with pytest.raises(Misconfigured, match=r"has no v_proj; it has q_proj, up_proj$"):
        require_targets(FILE, FILE.lanes["master"].training, tmp_path)


def test_a_base_elsewhere_is_left_to_the_trainer(tmp_path: Path) -> None:
    require_targets(FILE, FILE.lanes["master"].training, tmp_path)
    write_base(tmp_path)
    require_targets(FILE, FILE.lanes["master"].training, tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x09" + bytes(7) + b'{"a": 5}']
)
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(data)
    with pytest.raises(Misconfigured, match="not a readable safetensors file"):
        require_targets(FILE, FILE.lanes["master"].training, tmp_path)
