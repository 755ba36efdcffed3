"""Chat templates of each kind, written for these tests."""

HEADERS = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message.role }}<|end_header|>\n"
    "{{ message.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end_header|>\n{% endif %}"
)
"""Each turn ends with a token other than the end of a text, as in Llama 3."""

HEADER_TOKENS = ("<|bos|>", "<|end_of_text|>", "<|start|>", "<|end_header|>", "<|eom|>", "<|eot|>")

INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "[INST] {{ message.content }} [/INST]{% else %} {{ message.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
"""A blank between a question and its answer, as in Mistral's first templates."""
