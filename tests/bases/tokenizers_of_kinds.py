"""Small tokenizers of each kind that bases have, with vocabularies that are written down here."""

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?/[]{}<>|'\"_-+=()"


def sentencepiece(control: Sequence[str] = (), **options: Any) -> Any:
    """A tokenizer as SentencePiece makes it: a blank belongs to the word after it, a text begins
    with an added one, and characters outside the vocabulary are bytes.
    """
    vocabulary = {token: place for place, token in enumerate(["<unk>", "<s>", "</s>"])}
    for piece in [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]:
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [("▁", "Z"), ("▁Z", "a"), ("▁Za", "c"), ("▁Zac", "h"), ("▁", "B"), ("▁", "i"),
              ("▁i", "n"), ("s", "k"), ("sk", "y")]  # fmt: skip
    for merge in merges:
        vocabulary.setdefault("".join(merge), len(vocabulary))
    tokenizer = Tokenizer(
        BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return _with_control(tokenizer, ["<s>", "</s>", *control], bos_token="<s>", **options)


def byte_level(control: Sequence[str] = (), **options: Any) -> Any:
    """A tokenizer of bytes, as GPT-2's: a character outside ASCII takes several tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    vocabulary["Ġt"] = len(vocabulary)
    tokenizer = Tokenizer(BPE(vocabulary, [("Ġ", "t")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_control(tokenizer, control, **options)


def beginning_with(tokenizer: Any, token: str) -> Any:
    """Return a tokenizer that puts a control token before every text."""
    number = tokenizer.convert_tokens_to_ids(token)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, number)]
    )
    return tokenizer


def _with_control(tokenizer: Tokenizer, control: Sequence[str], **options: Any) -> Any:
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, **options)
