"""The engines: the Python that each runs in, and what to do where one is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .compare_process import ROOT, one_line
from .compare_worker import MODULES

PYTHONS = {"deepsparse": ROOT / ".venv-deepsparse" / "bin" / "python"}
"""Engines that need a Python of their own; the others run in this one."""

REMEDIES = {
    "spu": "run from the repository, with its package installed: `make test` makes .venv",
    "openvino": "`make bench-compare` installs it in .venv-bench",
    "onnxruntime": "`make bench-compare` installs it in .venv-bench",
    "deepsparse": "`make bench-deepsparse PYTHON311=python3.11` installs it; its licence allows "
    "evaluation only",
}
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NM_DISABLE_ANALYTICS": "1",  # DeepSparse would report its use over the network.
}
"""Of every worker; the threads of an engine are set by its own options."""


def python_of(engine: str, given: Mapping[str, Path]) -> Path:
    """The Python that an engine runs in: `given`, its own, or this one."""
    # Not resolved: a virtual environment's python is a link, and the environment is where it lies.
    return given.get(engine) or PYTHONS.get(engine) or Path(sys.executable)


def missing(engine: str, python: Path) -> str | None:
    """Why an engine cannot be measured, with the remedy; None where it can."""
    remedy = REMEDIES[engine]
    if not python.exists():
        shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
        return f"there is no {shown}; {remedy}"
    modules = [MODULES.get(engine, engine), *(["nncf"] if engine == "openvino" else [])]
    script = "; ".join(f"import {module}" for module in modules)
    done = subprocess.run(
        [str(python), "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"{one_line(done.stderr)}; {remedy}"
    return None
