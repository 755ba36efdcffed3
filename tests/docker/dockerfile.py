"""A Dockerfile as a list of instructions, each in its stage."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """What one `FROM` begins: name of the stage, what it builds on, and its instructions in order."""

    name: str
    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [arguments for instruction, arguments in self.instructions if instruction == word]


def stages(path: Path) -> dict[str, Stage]:
    """The stages of a file, in order."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Stage] = {}
    for line in filter(None, re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()):
        word, _, arguments = line.partition(" ")
        if word == "FROM":
            parent, _, name = arguments.partition(" AS ")
            stage = found[name] = Stage(name, parent)
        else:
            stage.instructions.append((word, arguments.strip()))
    return found


def lineage(found: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those it builds on, the outermost image's first."""
    stage = found[name]
    return [*(lineage(found, stage.parent) if stage.parent in found else []), stage]


def command_of(stage: Stage) -> list[str]:
    """What a stage runs when nothing else is asked for."""
    (command,) = stage.all("CMD")
    words: list[str] = json.loads(command)
    return words


def environment_of(found: dict[str, Stage], name: str) -> dict[str, str]:
    """The variables that an image sets."""
    return dict(
        variable.split("=", 1)
        for stage in lineage(found, name)
        for line in stage.all("ENV")
        for variable in shlex.split(line)
    )
