"""The command line application: its groups, in the order in which a user meets them."""

import typer

from ratchet.cli.audit import audit
from ratchet.cli.export import export
from ratchet.cli.feedback import feedback
from ratchet.cli.forget import forgetting
from ratchet.cli.models import models
from ratchet.cli.runs import pauses, runs
from ratchet.cli.stack import stack
from ratchet.cli.status import status
from ratchet.cli.topics import topics
from ratchet.cli.versions import versions
from ratchet.dataset.commands import dataset
from ratchet.dataset.master import master
from ratchet.dataset.training import training
from ratchet.dead_letters.command import dlq
from ratchet.new_model.command import new_model

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Ratchet: continuous fine-tuning from feedback, with gated promotions and rollback.",
)
app.add_typer(stack)
app.add_typer(new_model)
app.add_typer(status)
app.add_typer(topics, name="topics")
app.add_typer(models, name="models")
app.add_typer(feedback, name="feedback")
app.add_typer(versions)
app.add_typer(export)
app.add_typer(dataset, name="dataset")
app.add_typer(training)
app.add_typer(master, name="master")
app.add_typer(runs, name="runs")
app.add_typer(pauses)
app.add_typer(audit, name="audit")
app.add_typer(dlq, name="dlq")
app.add_typer(forgetting)
