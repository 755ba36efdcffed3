"""Parses a Dockerfile into stages and instructions."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """A build stage: its name, its parent, and its instructions in order."""

    name: str
    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [arguments for instruction, arguments in self.instructions if instruction == word]


def stages(path: Path) -> dict[str, Stage]:
    """Return the stages of a file, in order."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    by_name: dict[str, Stage] = {}
    for line in filter(None, re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()):
        word, _, arguments = line.partition(" ")
        if word == "FROM":
            parent, _, name = arguments.partition(" AS ")
            stage = by_name[name] = Stage(name, parent)
        else:
            stage.instructions.append((word, arguments.strip()))
    return by_name


def lineage(by_name: dict[str, Stage], name: str) -> list[Stage]:
    """Return a stage and its ancestors, the first ancestor first."""
    stage = by_name[name]
    return [*(lineage(by_name, stage.parent) if stage.parent in by_name else []), stage]


def command_of(stage: Stage) -> list[str]:
    """Return the default command of a stage."""
    (command,) = stage.all("CMD")
    words: list[str] = json.loads(command)
    return words


def environment_of(by_name: dict[str, Stage], name: str) -> dict[str, str]:
    """Return the variables that an image sets."""
    return dict(
        variable.split("=", 1)
        for stage in lineage(by_name, name)
        for line in stage.all("ENV")
        for variable in shlex.split(line)
    )
