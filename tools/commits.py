"""Commit subjects: imperative, capitalised, at most 72 characters.

Checks the commits since the rule was made; without git history there is nothing to check.
"""

import re
import subprocess
import sys
from collections.abc import Iterator

RULE_SINCE = "f12fb0a3279748e8abb4d104544ac0733767e9ad"
MAX_LENGTH = 72
NOT_IMPERATIVE = re.compile(
    r"(?:The|A|An|What|Whether|How|This|That|It|In|On|Plain|\w+ing|\w+ed|\w+:)", re.IGNORECASE
)
IMPERATIVES_THAT_LOOK_OTHERWISE = {"embed", "need", "bring", "feed", "speed", "shed", "string"}


def subject_faults(subjects: Iterator[str]) -> Iterator[str]:
    """Yield a line for each subject that breaks a rule."""
    for subject in subjects:
        first = subject.split()[0] if subject.split() else ""
        if len(subject) > MAX_LENGTH:
            yield f"{len(subject)} characters, at most {MAX_LENGTH}: {subject}"
        if not first[:1].isupper() or (
            NOT_IMPERATIVE.fullmatch(first) and first.lower() not in IMPERATIVES_THAT_LOOK_OTHERWISE
        ):
            yield f"start with a capitalised imperative, such as `Add`: {subject}"


def recent_subjects() -> list[str]:
    """Return the subjects since `RULE_SINCE`, none where that commit is not in the clone."""
    log = subprocess.run(
        ["git", "log", "--no-merges", "--format=%s", f"{RULE_SINCE}..HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return log.stdout.splitlines() if log.returncode == 0 else []


def main() -> int:
    """Print the faults; return the exit status."""
    subjects = recent_subjects()
    faults = list(subject_faults(iter(subjects)))
    print("\n".join(faults) or f"commit subjects: {len(subjects)} checked, no faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
