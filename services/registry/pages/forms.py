"""Form bodies of the pages."""

from urllib.parse import parse_qs

from fastapi import HTTPException, Request

MAX_REASON_LENGTH = 2000
REASON_NEEDED = f"Enter a reason of at most {MAX_REASON_LENGTH} characters."

_MAX_BYTES = 16_384


async def form_of(request: Request, max_bytes: int = _MAX_BYTES) -> dict[str, str]:
    """Return the fields of a form. Raises HTTPException for a body that is too large or invalid."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"a form has at most {max_bytes} bytes")
    try:
        fields = parse_qs(
            body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20
        )
    except ValueError as error:
        raise HTTPException(400, f"invalid form: {error}") from error
    return {name: values[-1] for name, values in fields.items()}
