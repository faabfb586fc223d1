"""What tests with models from PyTorch share: one thread, and warnings that are PyTorch's own."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent

WARNINGS = (
    # torch.onnx.export(dynamo=False) says that dynamo=True is the newer one.
    "ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning",
    # ... and marks its own helpers as deprecated.
    "ignore:The feature will be removed. Please remove usage of this function:DeprecationWarning",
    # The TorchScript exporter leaves a slice with steps of -1 as it is.
    "ignore:Constant folding - Only steps=1 can be constant folded:UserWarning",
    # transformers' rotary embedding keeps its table as a plain attribute.
    "ignore:The tensor attribute self.embed_positions.cached_rotary:UserWarning",
    # nn.MultiheadAttention compares sizes, which tracing makes tensors of.
    "ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning",
    # nn.MultiheadAttention changes its mask in place, which TorchScript's graph has no word for.
    "ignore:ONNX Preprocess - Removing mutation from node aten..masked_fill_:UserWarning",
    # torch.export with its own pytree, and with two inputs that share the axis `batch`.
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
    "ignore:# The axis name. .* will not be used, since it shares:UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for line in WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Workers fill the cores."""
    import torch

    torch.set_num_threads(1)
