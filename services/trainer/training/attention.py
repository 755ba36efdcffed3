"""Choice of an attention implementation by what an architecture computes."""

from typing import Any

NEEDS_EAGER = ("attn_logit_softcapping",)
"""Values of a configuration that change attention scores, and that torch's fused attention (`sdpa`,
the default) silently ignores.
"""


def attention_implementation(config: Any) -> str | None:
    """Return the implementation that a model with this configuration needs; None for the default
    of transformers.
    """
    language = config.get_text_config()
    return "eager" if any(getattr(language, name, None) for name in NEEDS_EAGER) else None
