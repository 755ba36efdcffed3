"""What one can type, in the order in which one meets it."""

import asyncio
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from ratchet import console
from ratchet.cli.doctor import run_checks
from ratchet.cli.feedback import build_event, read_events, send_events
from ratchet.cli.versions import versions
from ratchet.dataset.commands import dataset
from ratchet.dead_letters.command import dlq
from ratchet.demo.command import run_demo
from ratchet.erasure.report import report_model, show_reports
from ratchet.erasure.request import withdraw
from ratchet.kafka_admin.topics import apply_topics
from ratchet.local_stack.log_view import LogView
from ratchet.local_stack.processes import Ports, StackLayout, local_url
from ratchet.local_stack.stack import run_stack, run_until_interrupted
from ratchet.local_stack.supervisor import Supervisor
from ratchet.local_stack.token_store import token_for
from ratchet.options import (
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_REGISTRY,
    DEFAULT_STATE,
    Bases,
    Bootstrap,
    Json,
    ModelFiles,
    Registry,
    State,
    Token,
    security_from_environment,
)
from shared.clock import SystemClock
from shared.config.model_file import load_models
from shared.events import FeedbackType, UserForgotten
from shared.kafka.security import PLAINTEXT
from shared.machine_check import has_problem
from shared.messaging.topics import TOPICS

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Ratchet: continuous fine-tuning that only moves forward.",
)
feedback = typer.Typer(no_args_is_help=True, help="Send feedback.")
topics = typer.Typer(no_args_is_help=True, help="The topics on the bus.")
models = typer.Typer(no_args_is_help=True, help="Declared models.")
app.add_typer(feedback, name="feedback")
app.add_typer(dlq, name="dlq")
app.add_typer(topics, name="topics")
app.add_typer(models, name="models")
app.add_typer(dataset, name="dataset")
app.add_typer(versions)


@app.command()
def up(
    state: State = DEFAULT_STATE,
    model_files: Annotated[
        Path, typer.Option("--models", envvar="RATCHET_MODELS", help="The folder of model files.")
    ] = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Use this Kafka instead of one of our own.")
    ] = None,
    kafka_port: int = Ports.kafka,
    kafka_controller_port: int = Ports.kafka_controller,
    serving_port: int = Ports.serving,
    feedback_port: int = Ports.feedback,
    dataset_port: int = Ports.dataset,
    trainer_port: int = Ports.trainer,
    registry_port: int = Ports.registry,
) -> None:
    """Run everything on this machine until Ctrl-C: Kafka, serving, and the four services."""
    ports = Ports(
        kafka_port,
        kafka_controller_port,
        serving_port,
        feedback_port,
        dataset_port,
        trainer_port,
        registry_port,
    )
    view = LogView(state / "ratchet.log", SystemClock())

    async def started(supervisor: Supervisor) -> None:
        view.write_line(
            "ratchet",
            f"pages {local_url(ports.registry)}  ·  answers "
            f"{local_url(ports.serving, '/v1/chat/completions')}  ·  Ctrl-C stops",
        )
        await asyncio.Event().wait()

    security = security_from_environment() if bootstrap_servers else PLAINTEXT
    run_until_interrupted(
        run_stack(
            StackLayout(state, bases, model_files),
            ports,
            bootstrap_servers,
            view.write_line,
            started,
            security,
        )
    )


@app.command()
def demo(
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Good batches, at least.")] = 4,
    more: Annotated[
        int,
        typer.Option(
            min=0, max=20, help="Good batches more, at most, until 9 of 10 answers are exact."
        ),
    ] = 1,
    tickets: Annotated[
        int, typer.Option(min=5, max=500, help="Unseen tickets that each version is asked.")
    ] = 40,
    state: Annotated[Path, typer.Option(help="The demo's own folder; emptied first.")] = Path(
        ".ratchet/demo"
    ),
    model_files: Annotated[
        Path, typer.Option("--models", envvar="RATCHET_MODELS", help="The folder of model files.")
    ] = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
    seed: Annotated[int, typer.Option(help="Which tickets and which people.")] = 7,
) -> None:
    """Watch a small model learn from feedback, refuse poisoned feedback, and be rolled back and
    forward.
    """
    run_demo(rounds, more, tickets, state, model_files, bases, seed)


@app.command()
def doctor(
    model_files: ModelFiles = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
    object_store: Annotated[
        str, typer.Option(envvar="RATCHET_OBJECT_STORE", help="A folder or an fsspec URL.")
    ] = ".ratchet/objects",
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Check this machine: what training needs, the model files, the object store, the broker.
    Status 1 when there is a problem.
    """
    rows = run_checks(
        bootstrap_servers, object_store, model_files, bases, security_from_environment()
    )
    if json:
        console.print_json([row.model_dump() for row in rows])
    else:
        console.print_table(
            ("check", "", "found", "what to do"),
            [(row.name, row.state, row.found, row.advice) for row in rows],
        )
    if has_problem(rows):
        raise typer.Exit(1)


@feedback.command("send")
def feedback_send(
    model: Annotated[str, typer.Option(help="The model that answered.")],
    input: Annotated[str, typer.Option(help="The prompt, or a JSON list of {role, content}.")],
    output: Annotated[str, typer.Option(help="The answer.")],
    type: Annotated[str, typer.Option(help=" | ".join(FeedbackType.__args__))] = "thumbs_up",
    corrected: Annotated[str | None, typer.Option(help="What the answer should have been.")] = None,
    score: Annotated[
        float | None, typer.Option(help="What an automatic check gave, 0 to 1.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    model_version: Annotated[str | None, typer.Option(help="The version that answered.")] = None,
    event_id: Annotated[
        str | None, typer.Option(help="Say it again under the same id and it counts once.")
    ] = None,
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Send feedback on one answer."""
    fields: dict[str, Any] = {
        "event_id": event_id or str(uuid4()),
        "occurred_at": SystemClock().now(),
        "model": model,
        "model_version": model_version,
        "input": input,
        "output": output,
        "feedback_type": type,
        "validation_score": score,
        "corrected_output": corrected,
        "user_id": user,
    }
    event = build_event(fields)
    asyncio.run(send_events(bootstrap_servers, [event], security_from_environment()))
    if json:
        console.print_json({"sent": 1, "event_id": event.event_id})
    else:
        console.out.print(f"sent {event.event_id}", highlight=False)


@feedback.command("import")
def feedback_import(
    file: Path, bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS, json: Json = False
) -> None:
    """Send the feedback in a file of JSON Lines; nothing is sent unless every line is valid."""
    events = list(read_events(file))
    asyncio.run(send_events(bootstrap_servers, events, security_from_environment()))
    if json:
        console.print_json({"sent": len(events)})
    else:
        console.out.print(f"sent {len(events)} events")


@app.command()
def forget(
    user: Annotated[str, typer.Option(help="The id that the user's feedback came with.")],
    model: Annotated[
        str | None, typer.Option(help="Only what was said of this model; without it, of every one.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; it is kept, so do not name the user.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the services.")] = 120.0,
    model_files: ModelFiles = Path("models"),
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Withdraw a user's feedback: from what waits, from what is replayed, from every training set
    to come.
    """
    declared = load_models(model_files)
    chosen = [declared.get(model)] if model is not None else list(declared.files.values())
    if not yes:
        typer.confirm(
            f"Withdraw what {user} said of {', '.join(file.model for file in chosen)}? It "
            "cannot be undone",
            abort=True,
            err=True,
        )
    clock = SystemClock()
    event = UserForgotten(
        event_id=str(uuid4()), occurred_at=clock.now(), user_id=user, model=model, reason=reason
    )
    answers = asyncio.run(
        withdraw(
            bootstrap_servers,
            event,
            chosen,
            clock,
            timeout,
            console.print_status,
            security_from_environment(),
        )
    )
    shown = token_for(registry, state, token)
    found = [report_model(file.model, answers, registry, shown, clock, timeout) for file in chosen]
    if json:
        console.print_json({"forgotten": answers.forgotten, "models": found})
    else:
        show_reports(found)


@topics.command("apply")
def topics_apply(
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    replication: int = 1,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of each topic that is created, for good; by itself as the topic table says.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create the topics that the cluster lacks."""
    applied = asyncio.run(
        apply_topics(
            bootstrap_servers,
            replication=replication,
            partitions=partitions,
            security=security_from_environment(),
        )
    )
    if json:
        console.print_json({"created": applied.created, "present": applied.present})
    else:
        console.out.print(f"{len(applied.created)} topics created, {len(applied.present)} present")


@topics.command("list")
def topics_list(json: Json = False) -> None:
    """Show the topic table."""
    if json:
        console.print_json(
            [
                {"name": topic.name, "partitions": topic.partitions, **topic.settings}
                for topic in TOPICS
            ]
        )
        return
    rows = [
        (
            topic.name,
            topic.key,
            ", ".join(event.__name__ for event in topic.events),
            topic.producer,
            topic.retention or "always",
        )
        for topic in TOPICS
    ]
    console.print_table(("topic", "key", "events", "producer", "kept"), rows)


@models.command("check")
def models_check(folder: ModelFiles = Path("models"), json: Json = False) -> None:
    """Check every model file, its golden set, retention set and canaries; show how its feedback is
    rewarded and redacted.
    """
    found = load_models(folder)
    rows = [
        {
            "model": name,
            "digest": file.digest,
            "golden": len(found.golden(name)),
            "retention": len(found.regression_set(name)),
            "canaries": len(found.regression_prompts(name)),
            "reward": file.reward.model_dump(mode="json"),
            "redaction": file.redaction.model_dump(mode="json"),
        }
        for name, file in found.files.items()
    ]
    if json:
        console.print_json(rows)
        return
    columns = ("model", "digest", "golden", "retention", "canaries")
    console.print_table(columns, [[str(row[column])[:19] for column in columns] for row in rows])
    for name, file in found.files.items():
        console.out.print(
            f"{name}: {file.reward.summary}; {file.redaction.summary}", highlight=False
        )
