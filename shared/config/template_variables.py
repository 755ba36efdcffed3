"""Variables of a chat template, set in the same way wherever a model's conversations are rendered:
in training and evaluation, by the embedded host, and for Ollama.
"""

from typing import Annotated

from pydantic import Field

from shared.events import FrozenModel

PROMPT_DATE = "26 Jul 2024"
"""Date in the prompts of templates that take one. It is fixed, so that a version answers as it was
evaluated on every day. The templates of Llama 3 have this date where none is given.
"""


class TemplateVariables(FrozenModel):
    """Values of variables that chat templates read. A template ignores those it does not know."""

    enable_thinking: Annotated[
        bool, Field(description="true if the model may reason before its answer")
    ] = False
    date_string: Annotated[str, Field(description="date in the prompt")] = PROMPT_DATE


DEFAULT_VARIABLES = TemplateVariables()
