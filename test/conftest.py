"""What every test shares: deterministic hypothesis, and no writing outside the test's folders."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from support.cards import cards_folder

__all__ = ["cards_folder"]

# Examples are drawn the same way on every machine; kernels compile inside them, so no deadline.
settings.register_profile(
    "spu",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("spu")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """
    Compiled libraries are cached in the session's folder, not the user's.

    The processes of one session share it: what one has compiled, the others need not.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = str(root / "cache")
    os.environ["SPU_IR_CACHE"] = folder
    # What runs on cards is counted among the session's own processes; each worker has its own.
    os.environ["SPU_IR_RUNTIME"] = str(tmp_path_factory.mktemp("runtime"))
    return folder
