"""What a page's form sends."""

from urllib.parse import parse_qs

from fastapi import HTTPException, Request

_LARGEST = 16_384


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises HTTPException for a body that is too large or no form."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise HTTPException(413, f"a form has at most {_LARGEST} bytes")
    try:
        fields = parse_qs(
            body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20
        )
    except ValueError as error:
        raise HTTPException(400, f"this is no form: {error}") from error
    return {name: values[-1] for name, values in fields.items()}
