"""One training run in a process of its own, by the trainer's recipe or by one of its peers, on the same tokens in the same batches, in the
precision that the trainer takes on this machine.

`python -m benchmarks.contenders NAME EXAMPLES STEPS THREADS` prints one line of JSON: a `Run`.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic_core import to_json

from ratchet.demo.tickets import ticket
from services.trainer.base_model import BaseModel, learning, load_base
from services.trainer.machine import best_precision
from services.trainer.recipe import groups, train
from services.trainer.tokens import Encoded, encode
from services.trainer.training_set import Sample
from shared.training_config import TrainingConfig

BASE = ".ratchet/bases/smollm2-135m-instruct"
CONFIG = TrainingConfig(batch_size=10, epochs=1)
"""Batches of 10 and no accumulation, which is what `max(1, 8 // batch_size)` gives."""


@dataclass(frozen=True)
class Run:
    """`tokens` are those of the examples, padding not counted and what was computed once for several counted for each."""

    name: str
    tokens: int
    seconds: float
    peak_bytes: int
    parameters: int
    precision: str
    matrix_flops: float
    """Floating-point operations a second of a large product in this precision, as measured before and after the run."""


def ratchet(base: BaseModel, examples: Sequence[Encoded], steps: int) -> tuple[int, float]:
    class Enough(Exception):
        """The steps that are measured are done."""

    def report(stepped: Any) -> None:
        if stepped.step == steps:
            raise Enough

    torch.manual_seed(CONFIG.seed)
    with learning(base.train, CONFIG, None) as model:
        started = time.perf_counter()
        try:
            train(model, examples, CONFIG, base.device, report)
        except Enough:
            seconds = time.perf_counter() - started
    taken = list(groups(examples, CONFIG, 0))[:steps]
    return sum(len(example.ids) for group in taken for example in group), seconds


def trl(base: BaseModel, examples: Sequence[Encoded], steps: int) -> tuple[int, float]:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [
        {"input_ids": list(one.ids), "completion_mask": [int(at >= one.answer_start) for at in range(len(one.ids))]} for one in examples
    ]
    with tempfile.TemporaryDirectory() as folder:
        # Its defaults but for what costs time here: checkpointing of gradients computes every layer twice.
        settings = SFTConfig(**_settings(base, folder, steps), completion_only_loss=True, gradient_checkpointing=False)
        trainer = _counting(SFTTrainer)(
            model=base.train,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=base.vocabulary.tokenizer,
            peft_config=_lora(),
        )
        return _timed(trainer)


def transformers(base: BaseModel, examples: Sequence[Encoded], steps: int) -> tuple[int, float]:
    import peft
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    rows = [{"input_ids": list(one.ids), "labels": [-100] * one.answer_start + list(one.ids[one.answer_start :])} for one in examples]
    with tempfile.TemporaryDirectory() as folder:
        trainer = _counting(Trainer)(
            model=peft.get_peft_model(base.train, _lora()),
            args=TrainingArguments(**_settings(base, folder, steps)),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(base.vocabulary.tokenizer),
        )
        return _timed(trainer)


CONTENDERS: dict[str, Callable[[BaseModel, Sequence[Encoded], int], tuple[int, float]]] = {
    "ratchet": ratchet,
    "trl": trl,
    "transformers": transformers,
}


def _settings(base: BaseModel, folder: str, steps: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": CONFIG.batch_size,
        "gradient_accumulation_steps": CONFIG.accumulation,
        "learning_rate": CONFIG.learning_rate,
        "lr_scheduler_type": "cosine_with_restarts",
        "warmup_steps": CONFIG.warmup_ratio,
        "max_grad_norm": CONFIG.max_gradient_norm,
        "weight_decay": 0.0,
        "train_sampling_strategy": "group_by_length",
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": base.train.dtype == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": CONFIG.seed,
    }


def _lora() -> Any:
    import peft

    return peft.LoraConfig(
        r=CONFIG.rank, lora_alpha=CONFIG.alpha, lora_dropout=CONFIG.dropout, target_modules=list(CONFIG.targets), task_type="CAUSAL_LM"
    )


def _counting(trainer: Any) -> Any:
    class Counting(trainer):  # type: ignore[misc]  # a class of a library without types
        """Counts the tokens that it trains on."""

        tokens = 0

        def training_step(self, model: Any, inputs: Any, *rest: Any, **others: Any) -> Any:
            self.tokens += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest, **others)

    return Counting


def _timed(trainer: Any) -> tuple[int, float]:
    started = time.perf_counter()
    trainer.train()
    return trainer.tokens, time.perf_counter() - started


def _matrix_flops(like: torch.nn.Module, width: int = 2048, seconds: float = 1.0) -> float:
    (weight, *_) = like.parameters()
    one = torch.randn(width, width, dtype=weight.dtype, device=weight.device)
    products, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        float((one @ one)[0, 0])  # waits for a GPU
        products += 1
    return products * 2 * width**3 / (time.perf_counter() - started)


def main() -> None:
    name, count, steps, threads = sys.argv[1], *map(int, sys.argv[2:5])
    if threads:
        torch.set_num_threads(threads)
    precision = best_precision("cuda" if torch.cuda.is_available() else "cpu")
    base = load_base(BASE, precision)
    parameters = sum(parameter.numel() for parameter in base.train.parameters())
    tickets = [ticket("bench-trainer", number) for number in range(count)]
    examples = [encode(base.vocabulary, Sample(messages=one.messages, answer=one.answer), CONFIG.max_tokens) for one in tickets]
    before = _matrix_flops(base.train)
    tokens, seconds = CONTENDERS[name](base, examples, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    run = Run(name, tokens, seconds, peak, parameters, precision, (before + _matrix_flops(base.train)) / 2)
    sys.stdout.write(to_json(asdict(run)).decode() + "\n")


if __name__ == "__main__":
    main()
