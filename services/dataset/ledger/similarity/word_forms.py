"""Spellings, contractions and inflected forms of the same words."""

SPELLINGS = {
    "帐": "账",
    "地": "的",
    "得": "的",
    "再": "在",
    "作": "做",
    "มั้ย": "ไหม",
    "มั๊ย": "ไหม",
    "ยังไง": "อย่างไร",
    "หรือไม่": "ไหม",
    "หรือเปล่า": "ไหม",
    "รึเปล่า": "ไหม",
    "เมื่อไร": "เมื่อไหร่",
    "どうしたら": "どうすれば",
    "๊": "้",
    "麼": "么",
    "麽": "么",
    "裡": "里",
    "裏": "里",
    "嗎": "吗",
    "們": "们",
    "沒": "没",
    "यी": "ई",
    "ये": "ए",
    "よい": "いい",
    "良い": "いい",
}
"""Spellings that are often confused in scripts without blanks, with the one to compare by."""

PREFIXES = """
un in im il ir dis non mis de re pre post over under up down out ex
an ab auf aus ein zu um vor nach be ver ent er her hin miss
des
в вы во вз за от ото под при пере пре про раз рас не недо с со у до на об
"""
"""Prefixes that change what a word means: `subscribe` and `unsubscribe`."""

ENDINGS = "s es e en n er ern em ed d ing r ly ies y ied t te ten o a os as on ons"
"""Endings of inflected forms."""

NAME_ENDINGS = "s e en n es er ern"
"""Endings of inflected nouns that are written with a capital."""

CONTRACTIONS = (
    (r"\b(i|we)'d\b", r"\1 would"),
    (r"\bwould like\b", "want"),
    (r"\bat once\b", "immediately"),
    (r"\bcan'?t\b", "can not"),
    (r"\bcannot\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"\b(is|are|was|were|do|does|did|has|have|had|would|could|should|must)n'?t\b", r"\1 not"),
    (r"\b(it|that|he|she|what|where|who|how|there)'s\b", r"\1 is"),
    (r"\b(i)'m\b", r"\1 am"),
    (r"\b(you|we|they)'re\b", r"\1 are"),
    (r"\b(i|you|we|they)'ve\b", r"\1 have"),
    (r"\b(i|you|he|she|it|we|they)'ll\b", r"\1 will"),
    (r"(?<=\s)'n(e|en|em|er)?\b", r"ein\1"),
)
"""Patterns of contractions, with their expansions."""
