"""Templates as answers. Every value is escaped, and a page may load nothing but what the registry
itself serves.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from services.registry.pages import charts as pictures
from shared.clock import Clock

FOLDER = Path(__file__).parent

HEADERS = {
    # No inline script and no inline style: what feedback says can be shown, and do nothing.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer`, browsers would send forms without saying where they come from.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Templates:
    """The templates of the pages."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "moment": _moment,
            "short": _short,
            "label": _label,
            "value": _value,
            "breakable": _breakable,
        }
        self._environment.globals |= {"pictures": pictures}

    def page(
        self,
        template: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """A template filled in, with the headers that every page has."""
        text = self._environment.get_template(template).render(values, clock=self._clock.now())
        return HTMLResponse(text, status, {**HEADERS, **(headers or {})})


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "–"


def _short(value: Any) -> str:
    """A digest or an id in few characters; the whole stands in the API."""
    text = str(value).removeprefix("sha256:")
    return text if len(text) <= 16 else text[:12] + "…"


_LABELS = {
    "held_out": "held-out",
    "roll_back": "rolled back",
    "promote": "promoted",
    "found": "founded",
    "challenge": "challenges",
    "withdraw": "withdrawn",
    "forget": "forgotten",
    "undeployed": "not deployed",
    "reevaluate": "judged again",
    "exact_match": "exact match",
    "json_validity": "JSON validity",
    "bleu": "BLEU",
    "chrf": "chrF",
}


def _breakable(name: str) -> Markup:
    """A name that may go on in another line after each underscore, where there is little room."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _label(name: str) -> str:
    """What people call what programs call `name`."""
    return _LABELS.get(name, name.replace("_", " "))


def _value(value: Any) -> str:
    """A value of a configuration or of metrics."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
