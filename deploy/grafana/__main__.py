"""`python -m deploy.grafana [FOLDER]`: write the dashboards as JSON."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.overview import overview
from deploy.grafana.serving import serving
from deploy.grafana.streams import streams
from deploy.grafana.training import training

FOLDER = Path(__file__).parent / "dashboards"


def dashboard_files() -> Mapping[str, str]:
    """Return the content of each dashboard file, by file name."""
    boards = {
        "overview": overview(),
        "streams": streams(),
        "training": training(),
        "serving": serving(),
    }
    return {
        f"{name}.json": json.dumps(board, cls=JSONEncoder, indent=2) + "\n"
        for name, board in boards.items()
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in dashboard_files().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
