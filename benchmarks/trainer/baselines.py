"""One training run in its own process, with the trainer's recipe or another implementation, on the
same tokens in the same batches, in the precision that the trainer selects on this machine.

`python -m benchmarks.trainer.baselines NAME EXAMPLES STEPS` prints one line of JSON: a
`BenchmarkRun`.
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
    nf4_config,
    trainable_adapter,
)
from services.trainer.training.base_tokenizer import load_tokenizer
from services.trainer.training.recipe import step_batches, train
from shared.config.training import TrainingConfig

BASE = ".ratchet/bases/smollm2-135m-instruct"


@dataclass(frozen=True)
class BenchmarkTask:
    """Model, data and configuration of a run. The first `warm_up` steps, in which a device loads
    kernels, are not measured.
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
    """Measurements of a run. `tokens` counts the examples' tokens without padding; a shared prefix
    counts once per example.
    """

    name: str
    tokens: int
    seconds: float
    peak_bytes: int
    parameters: int
    precision: str
    matrix_flops: float
    """Floating-point operations per second of a large product in this precision, measured before
    and after the run.
    """


def run_ratchet(task: BenchmarkTask) -> tuple[int, float]:
    class StepsDone(Exception):
        """Ends the run after the measured steps."""

    started = time.perf_counter()

    def report(stepped: Any) -> None:
        nonlocal started
        if stepped.step == task.warm_up:
            started = time.perf_counter()
        if stepped.step == task.steps:
            raise StepsDone

    torch.manual_seed(task.config.seed)
    with trainable_adapter(task.model, task.config, None) as model:
        if not task.warm_up:
            started = time.perf_counter()
        try:
            train(model, task.examples, task.config, task.device, report)
        except StepsDone:
            seconds = time.perf_counter() - started
    measured = step_batches(task.examples, task.config, 0)[task.warm_up : task.steps]
    return sum(len(example.ids) for group in measured for example in group), seconds


def run_trl(task: BenchmarkTask) -> tuple[int, float]:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [
        {
            "input_ids": list(example.ids),
            "completion_mask": [
                int(position >= example.answer_start) for position in range(len(example.ids))
            ],
        }
        for example in task.examples
    ]
    with tempfile.TemporaryDirectory() as folder:
        # TRL's defaults, except for gradient checkpointing, which computes every layer twice: it is
        # set as in the trainer.
        settings = SFTConfig(**_settings(task, folder), completion_only_loss=True)
        trainer = _counting(SFTTrainer, task)(
            model=task.model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=task.tokenizer,
            peft_config=_lora(task.config),
        )
        return _timed(trainer)


def run_transformers(task: BenchmarkTask) -> tuple[int, float]:
    rows = [
        {
            "input_ids": list(example.ids),
            "labels": [-100] * example.answer_start + list(example.ids[example.answer_start :]),
        }
        for example in task.examples
    ]
    model = task.model
    if task.config.quantisation == "nf4":
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=task.config.gradient_checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _counting(Trainer, task)(
            model=peft.get_peft_model(model, _lora(task.config)),
            args=TrainingArguments(**_settings(task, folder)),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(task.tokenizer),
        )
        return _timed(trainer)


IMPLEMENTATIONS: dict[str, Callable[[BenchmarkTask], tuple[int, float]]] = {
    "ratchet": run_ratchet,
    "trl": run_trl,
    "transformers": run_transformers,
}


def _settings(task: BenchmarkTask, folder: str) -> dict[str, Any]:
    config = task.config
    return {
        "output_dir": folder,
        "max_steps": task.steps,
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
        "bf16": best_precision(task.device) == "bf16",
        "use_cpu": task.device == "cpu",
        "dataloader_pin_memory": task.device != "cpu",
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


def _counting(trainer: Any, task: BenchmarkTask) -> Any:
    class Counting(trainer):  # type: ignore[misc]  # the base class has no types
        """Counts training tokens and time after the warm-up."""

        tokens, calls, begun = 0, 0, 0.0

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self.calls == task.warm_up * task.config.accumulation and task.warm_up:
                self.tokens, self.begun = 0, time.perf_counter()
            self.calls += 1
            self.tokens += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *args, **kwargs)

    return Counting


def _timed(trainer: Any) -> tuple[int, float]:
    trainer.begun = time.perf_counter()
    trainer.train()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return trainer.tokens, time.perf_counter() - trainer.begun


def _matrix_flops(dtype: torch.dtype, device: str, seconds: float = 1.0) -> float:
    width = 2048 if device == "cpu" else 8192
    matrix = torch.randn(width, width, dtype=dtype, device=device)
    products, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        float((matrix @ matrix)[0, 0])  # waits for a GPU
        products += 1
    return products * 2 * width**3 / (time.perf_counter() - started)


def ticket_task(count: int, steps: int) -> BenchmarkTask:
    """Build a task from the demo's tickets on the small real model: batches of 10 without
    accumulation, which is `max(1, 8 // batch_size)`.
    """
    config = TrainingConfig(batch_size=10, epochs=1)
    device = local_device()
    base = load_base(BASE, best_precision(device))
    tickets = [make_ticket("bench-trainer", number) for number in range(count)]
    examples = [
        encode(
            base.vocabulary,
            Sample(messages=sample_ticket.messages, answer=sample_ticket.answer),
            config.max_tokens,
        )
        for sample_ticket in tickets
    ]
    return BenchmarkTask(
        base.train_model, base.vocabulary.tokenizer, config, examples, steps, 0, device
    )


def random_task(name: str, count: int, steps: int, folder: str, quantisation: str) -> BenchmarkTask:
    """Build a task of random tokens on a base of random weights: in 4 bits with gradient
    checkpointing as in QLoRA, or in 16 bits without.
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
        quantisation_config = nf4_config(dtype) if in_4_bits else None
        causal: Any = AutoModelForCausalLM
        model = causal.from_pretrained(
            folder, dtype=dtype, quantization_config=quantisation_config, device_map={"": device}
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
        help="folder of a base with random weights; trains on random tokens instead of the demo's "
        "tickets",
    )
    parser.add_argument(
        "--quantisation", choices=("none", "nf4"), default="none", help="quantisation of that base"
    )
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    size = arguments.examples, arguments.steps
    task = (
        random_task(arguments.name, *size, arguments.base, arguments.quantisation)
        if arguments.base
        else ticket_task(*size)
    )
    precision = best_precision(task.device)
    rate_before = _matrix_flops(DTYPES[precision], task.device)
    if task.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    parameters = task.model.num_parameters()
    tokens, seconds = IMPLEMENTATIONS[arguments.name](task)
    on_device = torch.cuda.max_memory_allocated() if task.device == "cuda" else 0
    peak = on_device or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rate = (rate_before + _matrix_flops(DTYPES[precision], task.device)) / 2
    sys.stdout.write(
        to_json(
            asdict(BenchmarkRun(arguments.name, tokens, seconds, peak, parameters, precision, rate))
        ).decode()
        + "\n"
    )


if __name__ == "__main__":
    main()
