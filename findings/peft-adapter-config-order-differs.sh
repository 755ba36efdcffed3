#!/usr/bin/env bash
# PEFT 0.21.2: the same adapter, saved by two processes, has two different adapter_config.json files.
#
# Expected: `save_pretrained` of the same weights and configuration writes the same bytes, as it does
# for adapter_model.safetensors, so that a digest of the folder identifies the adapter.
# Observed: `target_modules` is kept as a set and written in its order, which depends on the hash
# seed of the process. Within a process all files agree, so a test in one process does not show it.
# With PYTHONHASHSEED set, all processes agree.
#
# Needs Python 3.11 or newer, and PyPI. Takes a few minutes, most of them to install.
# Exit status 0 while the behaviour is as stated, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.17.0 torch==2.15.0
cd "$folder"
cat > save.py <<'PYTHON'
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
)
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
lora = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=True)
model = get_peft_model(LlamaForCausalLM(config), lora)
model.save_pretrained(sys.argv[1])
model.save_pretrained(sys.argv[2])
PYTHON
different() { # FILE FOLDER...: how many different contents a file has in these folders
    local file=$1
    shift
    sha256sum "${@/%//$file}" | cut -d' ' -f1 | sort -u | wc -l
}
save() { # NAME [SEED]
    env ${2:+PYTHONHASHSEED=$2} venv/bin/python save.py "$1" "$1-again" 2> /dev/null
}
for number in 1 2 3 4 5 6; do save "free-$number"; done
for number in 1 2; do save "fixed-$number" 0; done
in_one=$(different adapter_config.json free-1 free-1-again)
across=$(different adapter_config.json free-{1..6})
fixed=$(different adapter_config.json fixed-{1..2})
weights=$(different adapter_model.safetensors free-{1..6})
echo "different adapter_config.json: in one process $in_one, in six processes $across, with a fixed hash seed $fixed"
echo "different adapter_model.safetensors in six processes: $weights"
if ((in_one == 1 && across > 1 && fixed == 1 && weights == 1)); then
    echo "as stated"
else
    echo "changed"
    exit 1
fi
