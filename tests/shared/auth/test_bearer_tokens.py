"""Bearer tokens: parsing, roles, and no token in errors or output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.bearer_tokens import (
    MIN_TOKEN_LENGTH,
    Grant,
    Tokens,
    new_token,
    parse_token_lines,
    parse_tokens,
    tokens_for_role,
)
from shared.errors import SettingsError

TOKEN = st.text("abcXYZ019._~+/-", min_size=MIN_TOKEN_LENGTH, max_size=60)


def test_a_file_has_several_tokens_of_each_role() -> None:
    tokens = parse_tokens(
        "# ours\noperate first-operator-token\noperate second-operator-token # from May "
        "on\n\nread only-reading-token\n",
        "f",
    )
    assert [
        tokens.role_of(token) for token in ("first-operator-token", "second-operator-token")
    ] == ["operate", "operate"]
    assert tokens.role_of("only-reading-token") == "read"
    assert tokens.role_of("first-operator-token ") is None
    assert tokens.role_of("") is None


@given(TOKEN, TOKEN)
def test_a_prefix_of_a_token_is_not_accepted(token: str, candidate: str) -> None:
    tokens = tokens_for_role("read", [token], "here")
    assert tokens.role_of(token) == "read"
    assert tokens.role_of(candidate) == ("read" if candidate == token else None)


def test_a_union_of_tokens_keeps_the_operator_role() -> None:
    read, operate = (
        tokens_for_role("read", ["the-very-same-token"], "a"),
        tokens_for_role("operate", ["the-very-same-token"], "b"),
    )
    assert (
        (read | operate).role_of("the-very-same-token")
        == (operate | read).role_of("the-very-same-token")
        == "operate"
    )


@pytest.mark.parametrize(
    "line",
    [
        "operate",
        "operate short",
        "admin a-token-that-is-long-enough",
        "read two-tokens-in-one-line a-second-one-of-them",
        "read ümlaut-in-a-token",
        "operate grace hopper a-token-that-is-long-enough",
        "operate näme a-token-that-is-long-enough",
    ],
)
def test_an_invalid_line_is_named_without_its_content(line: str) -> None:
    with pytest.raises(
        SettingsError, match=r"RATCHET_TOKENS_FILE: /etc/t, line 2: expected"
    ) as error:
        parse_token_lines(f"# first\n{line}\n", "RATCHET_TOKENS_FILE: /etc/t")
    for word in line.split()[1:]:
        assert word not in str(error.value)


def test_tokens_may_have_owners() -> None:
    text = (
        "operate ada the-token-of-ada-alone\n"
        "read bob@example.com the-token-of-bob-alone\n"
        "operate a-token-without-owner  # comment\n"
    )
    tokens = parse_tokens(text, "the file")
    assert tokens.grant_of("the-token-of-ada-alone") == Grant("operate", "ada")
    assert tokens.grant_of("the-token-of-bob-alone") == Grant("read", "bob@example.com")
    assert tokens.grant_of("a-token-without-owner") == Grant("operate", None)
    assert tokens.grant_of("another-token-altogether") is None


def test_new_tokens_are_valid_and_distinct() -> None:
    generated = {new_token() for _ in range(100)}
    assert len(generated) == 100
    assert all(parse_tokens(f"read {token}", "f").role_of(token) == "read" for token in generated)


def test_tokens_are_not_in_the_repr() -> None:
    assert "secret" not in repr(tokens_for_role("read", ["a-secret-of-the-house"], "here"))
    assert repr(Tokens()) == repr(tokens_for_role("read", ["a-secret-of-the-house"], "here"))
