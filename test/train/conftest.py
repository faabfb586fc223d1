"""What tests that train share: they are not collected without PyTorch, and run on one thread."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent

WARNINGS = (
    # torch.export with its own pytree.
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
)

if find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.train)
            for line in WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Workers fill the cores, and sums have one order."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
