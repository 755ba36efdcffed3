"""`ratchet up`, `demo` and `doctor`: run Ratchet on this machine, and check it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ratchet import console
from ratchet.cli.doctor import run_checks
from ratchet.demo.command import run_demo
from ratchet.local_stack.log_view import LogView
from ratchet.local_stack.processes import Ports, StackLayout, local_url
from ratchet.local_stack.stack import run_stack, run_until_interrupted
from ratchet.local_stack.supervisor import Supervisor
from ratchet.options import (
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_STATE,
    Bases,
    Bootstrap,
    BuilderPort,
    DatasetPort,
    FeedbackPort,
    Json,
    KafkaControllerPort,
    KafkaPort,
    ModelFiles,
    RegistryPort,
    ServingPort,
    State,
    TrainerPort,
    security_from_environment,
)
from shared.clock import SystemClock
from shared.kafka.security import PLAINTEXT
from shared.machine_check import has_problem

stack = typer.Typer()


@stack.command()
def up(
    state: State = DEFAULT_STATE,
    model_files: ModelFiles = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Use this Kafka cluster instead of the embedded broker.")
    ] = None,
    kafka_port: KafkaPort = Ports.kafka,
    kafka_controller_port: KafkaControllerPort = Ports.kafka_controller,
    serving_port: ServingPort = Ports.serving,
    feedback_port: FeedbackPort = Ports.feedback,
    dataset_port: DatasetPort = Ports.dataset,
    trainer_port: TrainerPort = Ports.trainer,
    registry_port: RegistryPort = Ports.registry,
    builder_port: BuilderPort = Ports.builder,
) -> None:
    """Run Kafka, serving and the four services on this machine until Ctrl-C."""
    ports = Ports(
        kafka_port,
        kafka_controller_port,
        serving_port,
        feedback_port,
        dataset_port,
        trainer_port,
        registry_port,
        builder_port,
    )
    view = LogView(state / "ratchet.log", SystemClock())

    async def wait_for_interrupt(supervisor: Supervisor) -> None:
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
            wait_for_interrupt,
            security,
            patient=True,
        )
    )


@stack.command()
def demo(
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Minimum number of good batches.")] = 4,
    more: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            help="Maximum of additional batches until 9 of 10 answers are exact.",
        ),
    ] = 1,
    tickets: Annotated[
        int, typer.Option(min=5, max=500, help="Number of unseen tickets to evaluate each version.")
    ] = 40,
    state: Annotated[Path, typer.Option(help="Folder of the demo; emptied first.")] = Path(
        ".ratchet/demo"
    ),
    model_files: ModelFiles = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
    seed: Annotated[int, typer.Option(help="Seed of the tickets and the simulated users.")] = 7,
) -> None:
    """Run the demo: a small model learns, rejects poisoned feedback, and is rolled back."""
    run_demo(rounds, more, tickets, state, model_files, bases, seed)


@stack.command()
def doctor(
    model_files: ModelFiles = Path("models"),
    bases: Bases = Path(".ratchet/bases"),
    object_store: Annotated[
        str, typer.Option(envvar="RATCHET_OBJECT_STORE", help="A folder or an fsspec URL.")
    ] = ".ratchet/objects",
    bootstrap_servers: Bootstrap = DEFAULT_BOOTSTRAP_SERVERS,
    json: Json = False,
) -> None:
    """Check the requirements of Ratchet on this machine; exit status 1 if there is a problem.

    Checks the trainer's requirements, the model files, the object store and the broker.
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
