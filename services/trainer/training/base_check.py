"""Check of a base without its weights: what `ratchet doctor` and `ratchet models check` refuse, and
what the training process refuses when it loads the base.
"""

from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

from services.trainer.data.tokenization import Vocabulary
from services.trainer.errors import RunFailed
from services.trainer.training.base_tokenizer import load_vocabulary
from shared.config.template_variables import TemplateVariables


def load_checked_vocabulary(folder: str, template: TemplateVariables) -> Vocabulary:
    """Load a base's tokenizer, and check its architecture, chat template, end of turn and
    tokenizer. Raises RunFailed if the base cannot be used, an error of the library if a file cannot
    be read.
    """
    config: Any = AutoConfig.from_pretrained(folder)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise RunFailed(
            f"transformers has no causal language model for the architecture {config.model_type}",
            "take a base of another architecture",
        )
    return load_vocabulary(folder, template)
