"""The registry for people: one page, made here, that asks nothing of any other machine."""

from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.orm import Session

from services.registry import curve
from services.registry.access import reading
from services.registry.app import Registry
from services.registry.store.queries import runs_of
from services.registry.views import View, history_view, model_view, run_view, versions_view

_RUNS = 20


def add(app: FastAPI, registry: Registry) -> None:
    """Add the page to an application."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["moment"] = _moment
    environment.filters["short"] = _short
    template = environment.get_template("index.html")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False, dependencies=[Depends(reading)])
    async def index() -> HTMLResponse:
        names = list(registry.models.files)
        models = await registry.database.run(lambda session: [_model(session, name) for name in names])
        return HTMLResponse(template.render(models=models, now=registry.clock.now(), picture=curve))


def _model(session: Session, name: str) -> View:
    runs = [run_view(session, run) for run in runs_of(session, name, _RUNS)]
    for run in runs:
        run["curve"] = curve.curve([(point["step"], point["loss"]) for point in run["points"]])
    return {
        **model_view(session, name),
        "all_versions": versions_view(session, name),
        "runs": runs,
        "history": history_view(session, name),
    }


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "–"


def _short(value: Any) -> str:
    """A digest or an id in few characters; the whole stands in the API."""
    text = str(value).removeprefix("sha256:")
    return text if len(text) <= 16 else text[:12] + "…"
