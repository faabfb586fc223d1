"""
Times the layers of a package in a process of its own and prints them as JSON.

    python -m benchmarks.compare_layers PACKAGE FEEDS.npz RUNS PROCESSOR
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .compare_profile import profile


def main(package: str, feeds: str, runs: str, processor: str) -> None:
    os.sched_setaffinity(0, {int(processor)})
    with np.load(feeds) as archive:
        arrays = {name: archive[name] for name in archive.files}
    found = profile(Path(package), arrays, int(runs))
    print(json.dumps(found and [asdict(region) for region in found]))


if __name__ == "__main__":
    main(*sys.argv[1:])
