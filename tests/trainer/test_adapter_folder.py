"""A published adapter loads with peft and transformers alone, and gives the same logits as here."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import torch

from services.trainer.run.model_card import model_card
from services.trainer.training.base_model import save_adapter, trainable_adapter, with_adapter
from services.trainer.training.recipe import train
from shared.config.training import TrainingConfig
from shared.storage.adapters import (
    CONFIG,
    MANIFEST,
    MODEL_CARD,
    WEIGHTS,
    adapter_folder,
    read_adapter,
    write_adapter,
)
from shared.storage.object_store import FsspecStore
from tests.support.tickets import DIGEST
from tests.trainer.run.test_model_card import BATCH, checkpoint
from tests.trainer.tiny import EXAMPLES, tiny_model

IDS = torch.tensor([EXAMPLES[1].ids])

# Ratchet is installed next to the libraries: the script removes it from the path, and asserts that
# it cannot be imported.
WITHOUT_RATCHET = """
import importlib.util, sys
from pathlib import Path
sys.path[:] = [folder for folder in sys.path if not (Path(folder) / "services").is_dir()]
own_packages = ("services", "shared", "ratchet", "tests")
assert not any(importlib.util.find_spec(name) for name in own_packages)

import numpy as np, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, adapter, ids, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.no_grad():
    np.save(out, model(torch.tensor(np.load(ids))).logits.numpy())
"""


def logits(model: object) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    assert callable(model)
    with torch.no_grad():
        values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = model(IDS).logits.numpy()
    return values


def test_plain_peft_loads_the_folder_with_equal_logits(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "base")
    model = tiny_model()
    config = TrainingConfig(rank=4, alpha=8, batch_size=4, epochs=5, learning_rate=5e-3)
    with trainable_adapter(model, config, None) as wrapped:
        train(wrapped, EXAMPLES, config, "cpu", lambda step: None)
        save_adapter(wrapped, str(tmp_path / "base"), tmp_path / "run")
    store = FsspecStore(str(tmp_path / "objects"))
    folder = adapter_folder("support", "r")
    artefact = write_adapter(
        store,
        folder,
        {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()},
        DIGEST,
    )
    store.put(f"{folder}/{MODEL_CARD}", model_card(checkpoint(), BATCH).encode())

    folder_path = tmp_path / "objects" / folder
    assert {MODEL_CARD, CONFIG, MANIFEST, WEIGHTS} <= {path.name for path in folder_path.iterdir()}
    listed = json.loads((folder_path / MANIFEST).read_text())["files"]
    assert set(listed) == {path.name for path in folder_path.iterdir()} - {MODEL_CARD, MANIFEST}
    for name, digest in listed.items():
        assert digest == "sha256:" + hashlib.sha256((folder_path / name).read_bytes()).hexdigest()
    assert set(read_adapter(store, artefact).files) == set(listed)

    np.save(tmp_path / "ids.npy", IDS.numpy())
    command = [
        sys.executable,
        "-I",
        "-c",
        WITHOUT_RATCHET,
        str(tmp_path / "base"),
        str(folder_path),
        str(tmp_path / "ids.npy"),
        str(tmp_path / "logits.npy"),
    ]
    process = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180
    )
    assert process.returncode == 0, process.stderr
    peft_logits = np.load(tmp_path / "logits.npy")
    with with_adapter(model, folder_path) as adapted:
        own_logits = logits(adapted)
    assert np.allclose(own_logits, peft_logits, atol=1e-5)
    assert np.abs(logits(model) - peft_logits).max() > 0.1, "the adapter changes the base's logits"
    assert peft.PeftConfig.from_pretrained(str(folder_path)).base_model_name_or_path == str(
        tmp_path / "base"
    )


def test_adapter_without_a_model_card_is_read_unchanged(tmp_path: Path) -> None:
    store = FsspecStore(str(tmp_path))
    artefact = write_adapter(store, "adapters/m/r", {CONFIG: b"{}", WEIGHTS: b"w"}, DIGEST)
    before = read_adapter(store, artefact)
    store.put(f"adapters/m/r/{MODEL_CARD}", b"# a card that came later")
    assert read_adapter(store, artefact) == before
