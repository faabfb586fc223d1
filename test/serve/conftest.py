"""What tests of batch jobs and of the server share: small INT8 models, saved."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.models import Graph

import spu_ir
from spu_ir import zoo
from spu_ir.media import ImageInput

HERE = Path(__file__).parent
WORDS = 40

WARNINGS = (
    # Ray Data sets settings of its own that it says are deprecated.
    r"ignore::DeprecationWarning:ray\..*",
)

if find_spec("ray") is None or find_spec("starlette") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.serve)
            for line in WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients go to this machine themselves."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def ray_home() -> Iterator[None]:
    """What Ray writes goes to a folder that is removed, its secret too; and it reports nothing."""
    with (
        # Short, since the names of its sockets may not be long.
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as home,
        pytest.MonkeyPatch.context() as patch,
    ):
        token = Path(home) / "token"
        token.write_text(secrets.token_hex(32))
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_TMPDIR", home)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids int64 [batch, seq] below WORDS to logits [batch, 8] and their largest, peak [batch]."""
    g = Graph(seed=3)
    rows = g.op("Gather", g.weight((WORDS, 64)), g.input("ids", ["batch", "seq"], "int64"))
    hidden = g.op("Relu", g.op("MatMul", rows, g.weight((64, 64))))
    mean = g.op("ReduceMean", hidden, g.weight(np.array([1], np.int64)), keepdims=0)
    logits = g.op("MatMul", mean, g.weight((64, 8)))
    peak = g.op("ReduceMax", logits, g.weight(np.array([1], np.int64)), keepdims=0)
    model = spu_ir.compile(
        g.model(logits=(logits, ["batch", 8]), peak=(peak, ["batch"])),
        precision="int8",
        shapes={"batch": (1, 8), "seq": (1, 16)},
        calibration=[{"ids": np.random.default_rng(0).integers(0, WORDS, (8, 16))}],
        threads=1,
    )
    path = tmp_path_factory.mktemp("models") / "words.spu"
    model.save(path, levels=[model.level])
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ResNet that takes images."""
    images = ImageInput(size=32, resize=36, input="input_1.1")
    config = zoo.ResNetConfig(blocks=(1, 1), width=16, image=32, classes=10)
    rng = np.random.default_rng(0)
    model = spu_ir.compile(
        replace(zoo.published("resnet50"), config=config).build(),
        shapes={"batch": (1, 4)},
        calibration=[images.feeds([rng.integers(0, 256, (50, 60, 3), np.uint8) for _ in range(4)])],
        preprocess=images,
        threads=1,
    )
    path = tmp_path_factory.mktemp("models") / "pictures.spu"
    model.save(path, levels=[model.level])
    return path
