"""Routes of the playground, which need an operate token. The pages need no JavaScript."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from services.registry.api.authorization import Operator, require_operator
from services.registry.api.views import View
from services.registry.app import Registry
from services.registry.comparisons import (
    NONE_GOOD,
    Vote,
    VoteRefused,
    add_comparison,
    record_vote,
    require_comparison,
    shuffled,
)
from services.registry.deploy.targets.target import TargetRefused
from services.registry.pages.errors import page_route_class
from services.registry.pages.forms import form_of
from services.registry.pages.playground.asking import (
    MAX_PROMPT_LENGTH,
    MAX_VERSIONS,
    AskableVersion,
    Playground,
    QuestionRefused,
    TooManyQuestions,
)
from services.registry.pages.rendering import Templates
from services.registry.store.database import Session
from shared.errors import Unavailable

MAX_CORRECTION_LENGTH = 8000
LETTERS = "ABCD"

_MAX_FORM_BYTES = 131_072
_VERSION_FIELD = "version "


def add_playground_pages(app: FastAPI, registry: Registry) -> None:
    """Add the pages to an application."""
    templates = Templates(registry.clock)
    playground = Playground()
    router = APIRouter(
        include_in_schema=False,
        route_class=page_route_class(templates),
        dependencies=[Depends(require_operator)],
    )

    async def question_page(
        model: str,
        prompt: str = "",
        chosen: Sequence[str] | None = None,
        blind: bool = True,
        problem: str = "",
        status: int = 200,
    ) -> Response:
        """The form for a question, with the problem if serving does not answer."""
        target = registry.deployer.answering_target(model)
        versions: list[AskableVersion] = []
        try:
            versions = await playground.versions(model, target) if target else []
        except (Unavailable, TargetRefused) as error:
            problem, status = problem or f"Serving does not answer: {error}.", max(status, 503)
        if chosen is None:
            chosen = [row.version for row in versions if row.is_preselected]
        return templates.page(
            "playground.html",
            status,
            model=model,
            target=target.name if target else None,
            versions=versions,
            chosen=chosen,
            field=_VERSION_FIELD,
            prompt=prompt,
            blind=blind,
            problem=problem,
            max_length=MAX_PROMPT_LENGTH,
            max_versions=MAX_VERSIONS,
        )

    async def comparison_page(
        model: str, comparison_id: str, correction: str = "", problem: str = "", status: int = 200
    ) -> Response:
        def view(session: Session) -> View:
            row = require_comparison(session, model, comparison_id)
            return {
                "id": row.comparison_id,
                "prompt": row.prompt,
                "answers": [
                    {"letter": LETTERS[number], **answer}
                    for number, answer in enumerate(row.answers)
                ],
                "named": not row.blind or row.choice is not None,
                "choice": row.choice,
                "voter": row.voter,
            }

        shown = await registry.database.run(view)
        return templates.page(
            "comparison.html",
            status,
            model=model,
            shown=shown,
            none_good=NONE_GOOD,
            correction=correction,
            problem=problem,
            max_length=MAX_CORRECTION_LENGTH,
        )

    @router.get("/models/{model}/playground")
    async def show_question(model: str) -> Response:
        registry.models.get(model)
        return await question_page(model)

    @router.post("/models/{model}/playground")
    async def ask(model: str, request: Request) -> Response:
        """Ask the chosen versions, and show their answers on a page of their own."""
        registry.models.get(model)
        form = await form_of(request, _MAX_FORM_BYTES)
        prompt, blind = form.get("prompt", "").replace("\r\n", "\n"), "blind" in form
        chosen = [
            name.removeprefix(_VERSION_FIELD) for name in form if name.startswith(_VERSION_FIELD)
        ]
        target = registry.deployer.answering_target(model)
        if target is None:
            return await question_page(model, prompt, chosen, blind, status=409)
        comparison_id = uuid4().hex
        order = shuffled(chosen, comparison_id) if blind else chosen
        try:
            answers = await playground.ask(model, target, order, prompt)
        except QuestionRefused as error:
            return await question_page(model, prompt, chosen, blind, str(error), 422)
        except TooManyQuestions as error:
            return await question_page(model, prompt, chosen, blind, str(error), 429)
        except TargetRefused as error:
            return await question_page(model, prompt, chosen, blind, f"{error}.", 422)
        except Unavailable as error:
            return await question_page(model, prompt, chosen, blind, f"{error}.", 503)
        await registry.database.run(
            partial(
                add_comparison,
                comparison_id=comparison_id,
                model=model,
                prompt=prompt,
                answers=answers,
                blind=blind,
                now=registry.clock.now(),
            )
        )
        return RedirectResponse(f"/models/{model}/playground/{comparison_id}", 303)

    @router.get("/models/{model}/playground/{comparison_id}")
    async def show_comparison(model: str, comparison_id: str) -> Response:
        registry.models.get(model)
        return await comparison_page(model, comparison_id)

    @router.post("/models/{model}/playground/{comparison_id}")
    async def vote(
        model: str, comparison_id: str, request: Request, operator: Operator
    ) -> Response:
        registry.models.get(model)
        form = await form_of(request, _MAX_FORM_BYTES)
        correction = form.get("correction", "").replace("\r\n", "\n").strip()
        if len(correction) > MAX_CORRECTION_LENGTH:
            problem = f"A better answer has at most {MAX_CORRECTION_LENGTH} characters."
            return await comparison_page(model, comparison_id, correction, problem, 422)
        choice = Vote(form.get("choice", ""), correction)

        def decide(session: Session, now: datetime) -> tuple[None, None]:
            record_vote(session, model, comparison_id, choice, now)
            return None, None

        try:
            await registry.decide(decide, operator.name)
        except VoteRefused as error:
            return await comparison_page(model, comparison_id, correction, f"{error}.", 422)
        return RedirectResponse(f"/models/{model}/playground/{comparison_id}", 303)

    app.include_router(router)
