"""What a page's form sends, and whether it was our own page that sent it."""

from urllib.parse import parse_qs, urlsplit

from fastapi import HTTPException, Request

_LARGEST = 16_384


def from_our_own_page(request: Request) -> None:
    """Refuse what another site's page lets a browser send; browsers say with every form where it comes from."""
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if not origin or not host or urlsplit(origin).netloc != host:
        raise HTTPException(403, "a form has to come from the registry's own pages; programs use POST /api/models/{model}/rollback")


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises HTTPException for a body that is too large or no form."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise HTTPException(413, f"a form has at most {_LARGEST} bytes")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20)
    except ValueError as error:
        raise HTTPException(400, f"this is no form: {error}") from error
    return {name: values[-1] for name, values in fields.items()}
