"""Pseudonyms of identifiers."""

from shared.redaction.pseudonyms import pseudonym


def test_pseudonyms_never_change() -> None:
    """The first 16 digits of the SHA-256 of `ann@example.com`, computed independently."""
    assert pseudonym("user", "ann@example.com") == "user-71d4f55f72fa128d"


def test_case_and_outer_blanks_do_not_matter() -> None:
    assert pseudonym("user", " Ann@Example.com") == pseudonym("user", "ann@example.com")
    assert pseudonym("user", "ann@example.com") != pseudonym("user", "bob@example.com")
    assert pseudonym("conversation", "ann@example.com").startswith("conversation-")
