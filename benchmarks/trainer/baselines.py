"""One training run in a process of its own, by the trainer's recipe or by one of its peers, on the
same tokens in the same batches, in the precision that the trainer takes on this machine.

`python -m benchmarks.trainer.baselines NAME EXAMPLES STEPS` prints one line of JSON: a `Run`.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import peft
import torch
from pydantic_core import to_json
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from benchmarks.trainer.random_base import random_examples
from ratchet.demo.tickets import make_ticket
from services.trainer.data.tokenization import EncodedExample, encode
from services.trainer.data.training_set import Sample
from services.trainer.machine.device import best_precision, local_device
from services.trainer.training.base_model import (
    DTYPES,
    load_base,
    load_quantised,
    load_tokenizer,
    nf4_config,
    trainable_adapter,
)
from services.trainer.training.recipe import step_batches, train
from shared.config.training import TrainingConfig

BASE = ".ratchet/bases/smollm2-135m-instruct"


@dataclass(frozen=True)
class BenchmarkTask:
    """What a contender trains, and on what. Its first `warm_up` steps are not measured, where a
    device has kernels to load.
    """

    model: Any
    tokenizer: Any
    config: TrainingConfig
    examples: Sequence[EncodedExample]
    steps: int
    warm_up: int
    device: str


@dataclass(frozen=True)
class BenchmarkRun:
    """`tokens` are those of the examples, padding not counted and what was computed once for
    several counted for each.
    """

    name: str
    tokens: int
    seconds: float
    peak_bytes: int
    parameters: int
    precision: str
    matrix_flops: float
    """Floating-point operations a second of a large product in this precision, as measured before
    and after the run.
    """


def run_ratchet(work: BenchmarkTask) -> tuple[int, float]:
    class Enough(Exception):
        """The steps that are measured are done."""

    begun = time.perf_counter()

    def report(stepped: Any) -> None:
        nonlocal begun
        if stepped.step == work.warm_up:
            begun = time.perf_counter()
        if stepped.step == work.steps:
            raise Enough

    torch.manual_seed(work.config.seed)
    with trainable_adapter(work.model, work.config, None) as model:
        if not work.warm_up:
            begun = time.perf_counter()
        try:
            train(model, work.examples, work.config, work.device, report)
        except Enough:
            seconds = time.perf_counter() - begun
    taken = step_batches(work.examples, work.config, 0)[work.warm_up : work.steps]
    return sum(len(example.ids) for group in taken for example in group), seconds


def run_trl(work: BenchmarkTask) -> tuple[int, float]:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [
        {
            "input_ids": list(one.ids),
            "completion_mask": [int(at >= one.answer_start) for at in range(len(one.ids))],
        }
        for one in work.examples
    ]
    with tempfile.TemporaryDirectory() as folder:
        # Its defaults but for checkpointing of gradients, which computes every layer twice: as the
        # trainer has it.
        settings = SFTConfig(**_settings(work, folder), completion_only_loss=True)
        trainer = _counting(SFTTrainer, work)(
            model=work.model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=work.tokenizer,
            peft_config=_lora(work.config),
        )
        return _timed(trainer)


def run_transformers(work: BenchmarkTask) -> tuple[int, float]:
    rows = [
        {
            "input_ids": list(one.ids),
            "labels": [-100] * one.answer_start + list(one.ids[one.answer_start :]),
        }
        for one in work.examples
    ]
    model = work.model
    if work.config.quantisation == "nf4":
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=work.config.gradient_checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _counting(Trainer, work)(
            model=peft.get_peft_model(model, _lora(work.config)),
            args=TrainingArguments(**_settings(work, folder)),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(work.tokenizer),
        )
        return _timed(trainer)


IMPLEMENTATIONS: dict[str, Callable[[BenchmarkTask], tuple[int, float]]] = {
    "ratchet": run_ratchet,
    "trl": run_trl,
    "transformers": run_transformers,
}


def _settings(work: BenchmarkTask, folder: str) -> dict[str, Any]:
    config = work.config
    return {
        "output_dir": folder,
        "max_steps": work.steps,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulation,
        "gradient_checkpointing": config.gradient_checkpointing,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine_with_restarts",
        "warmup_steps": config.warmup_ratio,
        "max_grad_norm": config.max_gradient_norm,
        "weight_decay": 0.0,
        "train_sampling_strategy": "group_by_length",
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": best_precision(work.device) == "bf16",
        "use_cpu": work.device == "cpu",
        "dataloader_pin_memory": work.device != "cpu",
        "seed": config.seed,
    }


def _lora(config: TrainingConfig) -> Any:
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        task_type="CAUSAL_LM",
    )


def _counting(trainer: Any, work: BenchmarkTask) -> Any:
    class Counting(trainer):  # type: ignore[misc]  # a class of a library without types
        """Counts the tokens that it trains on after it is warm, and takes the time since then."""

        tokens, calls, begun = 0, 0, 0.0

        def training_step(self, model: Any, inputs: Any, *rest: Any, **others: Any) -> Any:
            if self.calls == work.warm_up * work.config.accumulation and work.warm_up:
                self.tokens, self.begun = 0, time.perf_counter()
            self.calls += 1
            self.tokens += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest, **others)

    return Counting


def _timed(trainer: Any) -> tuple[int, float]:
    trainer.begun = time.perf_counter()
    trainer.train()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return trainer.tokens, time.perf_counter() - trainer.begun


def _matrix_flops(dtype: torch.dtype, device: str, seconds: float = 1.0) -> float:
    width = 2048 if device == "cpu" else 8192
    one = torch.randn(width, width, dtype=dtype, device=device)
    products, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        float((one @ one)[0, 0])  # waits for a GPU
        products += 1
    return products * 2 * width**3 / (time.perf_counter() - started)


def ticket_task(count: int, steps: int) -> BenchmarkTask:
    """The demo's tickets on the small real model: batches of 10 and no accumulation, which is what
    `max(1, 8 // batch_size)` gives.
    """
    config = TrainingConfig(batch_size=10, epochs=1)
    device = local_device()
    base = load_base(BASE, best_precision(device))
    found = [make_ticket("bench-trainer", number) for number in range(count)]
    examples = [
        encode(base.vocabulary, Sample(messages=one.messages, answer=one.answer), config.max_tokens)
        for one in found
    ]
    return BenchmarkTask(
        base.train_model, base.vocabulary.tokenizer, config, examples, steps, 0, device
    )


def random_task(name: str, count: int, steps: int, folder: str, quantisation: str) -> BenchmarkTask:
    """Random tokens on a base of random weights: in 4 bits with gradients checkpointed as QLoRA has
    it, or in 16 bits without.
    """
    in_4_bits = quantisation == "nf4"
    config = TrainingConfig.model_validate(
        {
            "batch_size": 16,
            "epochs": 1,
            "quantisation": quantisation,
            "gradient_checkpointing": in_4_bits,
        }
    )
    device = local_device()
    dtype = DTYPES[best_precision(device)]
    if name == "ratchet" and in_4_bits:
        model: Any = load_quantised(folder, dtype, device)
    else:
        held = nf4_config(dtype) if in_4_bits else None
        causal: Any = AutoModelForCausalLM
        model = causal.from_pretrained(
            folder, dtype=dtype, quantization_config=held, device_map={"": device}
        )
        model.requires_grad_(False)
    return BenchmarkTask(
        model,
        load_tokenizer(folder),
        config,
        random_examples(count, model.config.vocab_size),
        steps,
        8,
        device,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.trainer.baselines", description=__doc__)
    parser.add_argument("name", choices=IMPLEMENTATIONS)
    parser.add_argument("examples", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--threads", type=int, default=0, help="cores to use; 0 is all")
    parser.add_argument(
        "--base",
        help="a folder with a base of random weights, to train on random tokens instead of the "
        "demo's tickets",
    )
    parser.add_argument(
        "--quantisation", choices=("none", "nf4"), default="none", help="how that base is held"
    )
    told = parser.parse_args()
    if told.threads:
        torch.set_num_threads(told.threads)
    size = told.examples, told.steps
    work = (
        random_task(told.name, *size, told.base, told.quantisation)
        if told.base
        else ticket_task(*size)
    )
    precision = best_precision(work.device)
    before = _matrix_flops(DTYPES[precision], work.device)
    if work.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    parameters = work.model.num_parameters()
    tokens, seconds = IMPLEMENTATIONS[told.name](work)
    on_device = torch.cuda.max_memory_allocated() if work.device == "cuda" else 0
    peak = on_device or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rate = (before + _matrix_flops(DTYPES[precision], work.device)) / 2
    sys.stdout.write(
        to_json(
            asdict(BenchmarkRun(told.name, tokens, seconds, peak, parameters, precision, rate))
        ).decode()
        + "\n"
    )


if __name__ == "__main__":
    main()
