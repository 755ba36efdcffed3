"""Dimensions of a base, read from its configuration and the headers of its weight files; the
weights are not loaded.
"""

import json
from pathlib import Path

from services.trainer.errors import RunFailed
from services.trainer.kernels.packing import supports_packing
from services.trainer.machine.memory import ModelShape
from shared.storage.base_projections import read_tensor_shapes


def read_shape(folder: Path) -> ModelShape | None:
    """Read a base's dimensions. Returns None if its configuration uses unknown names, so that
    memory cannot be estimated. Raises RunFailed if the base is missing.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # A multimodal model has a separate configuration for its language model.
        config = config.get("text_config", config)
        tensors = {
            name: shape
            for path in sorted(folder.glob("*.safetensors"))
            for name, shape in read_tensor_shapes(path).items()
        }
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return ModelShape(
            tensors=tensors,
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config.get("intermediate_size") or 4 * hidden,
            heads=heads,
            head_size=config.get("head_dim") or hidden // heads,
            vocabulary=config["vocab_size"],
            model_type=config.get("model_type", ""),
            packed=supports_packing(
                config.get("model_type", ""),
                config.get("sliding_window"),
                config.get("layer_types"),
            ),
        )
    except KeyError:
        return None
    except (OSError, ValueError) as error:
        raise RunFailed(
            f"the base cannot be loaded: {error}",
            "check base.training in the model file, and RATCHET_BASES",
        ) from error
