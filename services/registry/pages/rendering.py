"""Rendering of templates: every value is escaped, and pages load only the registry's own files."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from services.registry.pages import charts
from shared.clock import Clock

FOLDER = Path(__file__).parent

HEADERS = {
    # No inline scripts and styles: text of feedback is shown and cannot run.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; object-src 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer`, browsers would send forms with the origin `null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Templates:
    """Renders the templates of the pages."""

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
            "age": _age,
            "short": _short,
            "label": _label,
            "value": _value,
            "breakable": _breakable,
        }
        self._environment.globals |= {"charts": charts}

    def page(
        self,
        template: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """Render a template with the headers of every page."""
        text = self._environment.get_template(template).render(values, clock=self._clock.now())
        return HTMLResponse(text, status, {**HEADERS, **(headers or {})})


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "–"


def _age(at: datetime, now: datetime) -> str:
    """Return the time since a moment in its largest unit; another machine's clock may be ahead."""
    seconds = max(0, int((now - at).total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if count := seconds // size:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} s"


def _short(value: Any) -> str:
    """Shorten a digest or an id; the API has the full value."""
    text = str(value).removeprefix("sha256:")
    return text if len(text) <= 16 else text[:12] + "…"


_LABELS = {
    "held_out": "held-out",
    "roll_back": "rolled back",
    "promote": "promoted",
    "found": "bootstrapped",
    "challenge": "challenger",
    "withdraw": "withdrawn",
    "held": "awaiting promotion",
    "retention": "regression set",
    "canaries": "regression prompts",
    "forget": "data withdrawn",
    "remove": "adapters removed",
    "hold": "put on hold",
    "release": "hold released",
    "request_training": "training requested",
    "pause": "training paused",
    "resume": "training resumed",
    "cancel_run": "run cancelled",
    "resume_run": "run resumed",
    "undeployed": "deployment failed",
    "reevaluate": "waiting for re-evaluation",
    "exact_match": "exact match",
    "json_validity": "JSON validity",
    "bleu": "BLEU",
    "chrf": "chrF",
}


def _breakable(name: str) -> Markup:
    """Allow line breaks after the underscores of a name."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _label(name: str) -> str:
    """Return the display text of an identifier."""
    return _LABELS.get(name, name.replace("_", " "))


def _value(value: Any) -> str:
    """Format a value of a configuration or of metrics."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
