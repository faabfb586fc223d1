"""The thread pool of the device model, by a C program that plays its callers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from spu_ir.runtime.build import DEVICE, find_compiler, program_flags

DRIVER = Path(__file__).parent / "support" / "pool_driver.c"
SANITIZERS = {
    "plain": (),
    "thread": ("-fsanitize=thread", "-g", "-O1"),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"),
}
CHECKS = ("callers", "idle", "busy", "fork", "count", "shares")
# The thread sanitizer has a thread of its own, and forbids new threads after a fork.
RUNS = [
    (s, c)
    for s in SANITIZERS
    for c in CHECKS
    if (s, c) not in {("thread", "fork"), ("thread", "count")}
]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build_driver(name, tmp_path_factory.mktemp("pool")) for name in SANITIZERS}


def build_driver(sanitizer: str, folder: Path) -> Path:
    path = folder / "driver"
    flags = [*program_flags("c"), *SANITIZERS[sanitizer], "-pthread"]
    subprocess.run(
        [*find_compiler().command, *flags, f"-I{DEVICE}", str(DRIVER), "-o", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return path


@pytest.mark.parametrize(("sanitizer", "check"), RUNS)
def test_pool(drivers: dict[str, Path], sanitizer: str, check: str) -> None:
    done = subprocess.run(
        [drivers[sanitizer], check], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
