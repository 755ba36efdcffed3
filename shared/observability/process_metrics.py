"""Metrics that every service exports about itself: version, health, and free space on the disks it
writes to.
"""

import shutil
from collections.abc import Mapping
from functools import partial
from math import nan
from pathlib import Path
from typing import Literal

from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.version import ratchet_version


def export_process_metrics(
    metrics: Metrics, health: Health, folders: Mapping[str, Path | None]
) -> None:
    """Register the metrics; they are read at each scrape.

    `folders` are the folders that the service writes to, by setting; None for storage that is not a
    local disk.
    """
    metrics.set("ratchet_build_info", 1, version=ratchet_version())
    metrics.set_function("ratchet_service_live", lambda: float(health.is_live))
    metrics.set_function("ratchet_service_ready", lambda: float(health.is_ready))
    metrics.set_function("ratchet_service_stalled_seconds", lambda: health.stalled_seconds)
    for name, folder in folders.items():
        if folder is not None:
            metrics.set_function(
                "ratchet_disk_free_bytes", partial(_of_disk, folder, "free"), folder=name
            )
            metrics.set_function(
                "ratchet_disk_size_bytes", partial(_of_disk, folder, "total"), folder=name
            )


def _of_disk(folder: Path, what: Literal["free", "total"]) -> float:
    """Return the free or total space in bytes; NaN when the disk is gone."""
    there = next(
        (place for place in (folder, *folder.absolute().parents) if place.exists()), folder
    )
    try:
        return float(getattr(shutil.disk_usage(there), what))
    except OSError:
        return nan
