"""The zoo's builders against the networks that they build, run by PyTorch on the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.published import run_onnx, small

from spu_ir import zoo

pytestmark = pytest.mark.export

Array = NDArray[Any]


def perturbed(model: Any, seed: int) -> Any:
    """A model of PyTorch with no weight left as it is initialised, ready for inference."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * 0.1)
    return model.eval()


def in_torch(model: Any, feeds: dict[str, Array]) -> Any:
    import torch

    with torch.no_grad():
        return model(**{name: torch.from_numpy(value) for name, value in feeds.items()})


@pytest.mark.parametrize("name", ["bert", "albert", "roberta"])
def test_question_answering(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    kind = {"bert": "Bert", "albert": "Albert", "roberta": "Roberta"}[name]
    model = small(name)
    settings = getattr(transformers, f"{kind}Config")(**vars(model.config))
    network = perturbed(getattr(transformers, f"{kind}ForQuestionAnswering")(settings), 1)
    feeds = model.feeds(3, 17, seed=1)
    want = in_torch(network, {key.removesuffix(".1"): value for key, value in feeds.items()})
    state = network.state_dict()
    got = run_onnx(model.build(state), feeds)
    for output in model.outputs:
        np.testing.assert_allclose(got[output], want[output].numpy(), atol=5e-6)

    assert type(model.config).from_dict(settings.to_dict()) == model.config
    half = {key: value.bfloat16() for key, value in state.items()}
    rounded = {key: value.bfloat16().float().numpy() for key, value in state.items()}
    assert model.build(half) == model.build(rounded)


def test_conformer() -> None:
    from export.conformer_torch import Conformer, ConformerShape

    model = small("conformer")
    network = perturbed(Conformer(ConformerShape(**vars(model.config))), 2)
    feeds = model.feeds(3, seed=2)
    want = in_torch(network, feeds).numpy()
    got = run_onnx(model.build(network.state_dict()), feeds)["memory"]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_published_sizes_are_those_of_huggingface() -> None:
    transformers = pytest.importorskip("transformers")
    assert zoo.BertConfig.from_dict(transformers.BertConfig().to_dict()) == zoo.BertConfig()
