"""Escaped text has no effect as Markdown: a reader shows it unchanged."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.dataset.snapshot.markdown import block, code, table, truncate

READER = MarkdownIt("commonmark").enable("table")
TEXT = st.text(
    st.sampled_from(list("ab `|\\*_<>[]()#!&~\n\t-$"))
    | st.characters(categories=["L", "N", "P", "S"]),
    max_size=30,
)


def inside(markdown: str) -> list[Token]:
    return [child for token in READER.parse(markdown) for child in (token.children or [])]


@given(TEXT, TEXT)
def test_table_cells_hold_the_text_in_one_line(first: str, second: str) -> None:
    tokens = inside(table(("a", "b"), [(code(f"x{first}"), code(f"y{second}"))]))
    assert [token.type for token in tokens] == ["text", "text", "code_inline", "code_inline"]
    assert [token.content for token in tokens[2:]] == [
        " ".join(f"x{first}".split()),
        " ".join(f"y{second}".split()),
    ]


@given(TEXT)
def test_block_holds_the_text(text: str) -> None:
    (token,) = READER.parse(block(text))
    assert (token.type, token.info) == ("fence", "text")
    assert token.content == text.replace("\t", "    ") + "\n"


def test_block_keeps_lines() -> None:
    (token,) = READER.parse(block("# a\n```\n| b |\n\n<script>"))
    assert token.content == "# a\n```\n| b |\n\n<script>\n"


def test_control_characters_are_made_visible() -> None:
    assert code("a\x1b[2Jb\u202ec") == "`a\\x1b[2Jb\\u202ec`"
    assert "\\x1b" in block("\x1b]0;title\x07")


def test_blank_text_gives_no_code_span() -> None:
    assert code(" \n") == ""


def test_truncated_text_shows_the_missing_length() -> None:
    assert truncate("a" * 1300, 3) == "aaa … (1,297 more characters)"
    assert truncate("abc", 3) == "abc"
