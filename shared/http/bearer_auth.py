"""Bearer tokens in the `Authorization` header (RFC 6750)."""


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an `Authorization: Bearer <token>` header; None for any other value."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def challenge(realm: str, error: str | None = None, scope: str | None = None) -> str:
    """Build the `WWW-Authenticate` value of a refused request (RFC 6750, section 3)."""
    parts = [f'Bearer realm="{realm}"']
    if error:
        parts.append(f'error="{error}"')
    if scope:
        parts.append(f'scope="{scope}"')
    return ", ".join(parts)
