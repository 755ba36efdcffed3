"""The docs on metrics, alerts and objectives match the code; the commands in runbooks are valid."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from deploy.prometheus.__main__ import PAGE, metrics_page
from ratchet.cli.commands import app
from tests.monitoring.rule_files import RUNBOOKS, alerts, known_metrics, metrics_of

MONITORING = Path("docs/monitoring.md")
PAGES = sorted(RUNBOOKS.glob("*.md"))
COMMANDS = re.compile(r"^ratchet .*", re.MULTILINE)
QUERIES = re.compile(r"^promtool query instant \S+ '([^']+)'", re.MULTILINE)


def shell(text: str) -> str:
    """Return the content of shell blocks."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))


def test_the_metrics_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page(), "run: python -m deploy.prometheus"


def test_every_alert_has_one_runbook() -> None:
    titles = [
        name
        for path in PAGES
        for name in path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(", ")
    ]
    assert sorted(titles) == sorted(alerts())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_runbook_has_all_sections_and_valid_links(
    path: Path,
) -> None:
    text = path.read_text(encoding="utf-8")
    heads = re.findall(r"^\*\*(Meaning|Impact|Steps|Resolved)\b", text, re.MULTILINE)
    assert heads == ["Meaning", "Impact", "Steps", "Resolved"]
    assert shell(text)
    for target in re.findall(r"\]\(([^)#h][^)#]*)", text):
        assert (path.parent / target).is_file(), target


def commands() -> dict[tuple[str, ...], set[str]]:
    """Return the options of every command of the command line, by its words."""
    options_by_command: dict[tuple[str, ...], set[str]] = {}

    def collect(command: Any, words: tuple[str, ...]) -> None:
        subcommands: dict[str, Any] | None = getattr(command, "commands", None)
        if subcommands is None:
            options_by_command[words] = {
                option for parameter in command.params for option in parameter.opts
            }
        for name, subcommand in (subcommands or {}).items():
            collect(subcommand, (*words, name))

    collect(typer.main.get_command(app), ())
    return options_by_command


def test_runbook_commands_exist() -> None:
    known_commands = commands()
    assert len(known_commands) >= 20
    runbook_lines = [
        line for path in PAGES for line in COMMANDS.findall(shell(path.read_text(encoding="utf-8")))
    ]
    assert len(runbook_lines) >= 30
    for line in runbook_lines:
        words = tuple(shlex.split(line, comments=True)[1:])
        command = next(
            (words[:length] for length in (1, 2) if words[:length] in known_commands), None
        )
        assert command, line
        assert {word for word in words if word.startswith("--")} <= known_commands[command], line


def test_runbook_queries_use_known_metrics() -> None:
    queries = [
        query for path in PAGES for query in QUERIES.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(queries) >= 10
    for query in queries:
        assert metrics_of(query), query
        assert metrics_of(query) <= known_metrics(), query


def test_the_monitoring_page_lists_every_alert() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| .* \| \[\w[^]]*\]\((runbooks/[\w-]+\.md)\) \|$",
        MONITORING.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    documented = {name: (severity, f"docs/{runbook}") for name, severity, runbook in rows}
    assert documented == {
        name: (rule["labels"]["severity"], rule["annotations"]["runbook_url"])
        for name, rule in alerts().items()
    }
