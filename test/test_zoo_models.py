"""The published models: their interfaces, their inputs, and what the architectures compute."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.published import CONFIGS, run_onnx, small, wave_weights

from spu_ir import zoo
from spu_ir.errors import SpuError
from spu_ir.zoo import albert_model, bert_model, conformer_model

Array = NDArray[Any]
TEXT = ["bert", "albert", "roberta"]


def signature(values: Any) -> dict[str, tuple[int, tuple[int | str, ...]]]:
    """Name -> element type and shape, of inputs or outputs."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    }


@pytest.mark.parametrize("name", TEXT)
def test_interface_of_question_answering(name: str) -> None:
    model = small(name).build()
    onnx.checker.check_model(model, full_check=True)
    text = (onnx.TensorProto.INT64, ("batch", "seq"))
    scores = (onnx.TensorProto.FLOAT, ("batch", "seq"))
    names = ("input_ids.1", "attention_mask.1", "token_type_ids.1")
    assert signature(model.graph.input) == dict.fromkeys(names, text)
    assert signature(model.graph.output) == dict.fromkeys(("start_logits", "end_logits"), scores)


def test_interface_of_resnet() -> None:
    model = small("resnet50").build()
    onnx.checker.check_model(model, full_check=True)
    real = onnx.TensorProto.FLOAT
    assert signature(model.graph.input) == {"input_1.1": (real, ("batch", 3, 32, 32))}
    assert signature(model.graph.output) == {"softmax_tensor:0": (real, ("batch", 10))}
    config = zoo.published("resnet50").config
    assert isinstance(config, zoo.ResNetConfig)
    assert (config.image, config.classes) == (224, 1000)


def test_interface_of_the_conformer() -> None:
    model = small("conformer").build()
    onnx.checker.check_model(model, full_check=True)
    real, truth = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    assert signature(model.graph.input) == {
        "src": (real, ("batch", 3, 16, 64)),
        "src_pad_mask": (truth, ("batch", 16)),
    }
    assert signature(model.graph.output) == {"memory": (real, ("batch", 16, 64))}
    config = zoo.published("conformer").config
    assert isinstance(config, zoo.ConformerConfig)
    assert (config.channels, config.height, config.width, config.time) == (3, 64, 512, 128)


def test_the_registry_knows_names_and_tasks() -> None:
    tasks = {model.task for model in zoo.MODELS.values()}
    assert tasks == {
        "bert-torch-fp32",
        "albert-torch-fp32",
        "roberta-torch-fp32",
        "resnet50-torch-fp32",
        "conformer-encoder-onnx-fp32",
    }
    for name, model in zoo.MODELS.items():
        assert zoo.published(name) is zoo.published(model.task) is model
    with pytest.raises(SpuError, match=r"'vgg' is not known; use one of bert, albert"):
        zoo.published("vgg")
    assert [m.seq for m in zoo.MODELS.values()] == [384, 384, 384, None, None]
    for name in TEXT:
        config = zoo.published(name).config
        assert isinstance(config, zoo.transformer.TransformerConfig)
        assert config.max_tokens == 512


@pytest.mark.parametrize("name", TEXT)
def test_sampled_texts_are_padded_on_the_right(name: str) -> None:
    model = small(name)
    feeds = model.feeds(64, 40, seed=3)
    ids, mask, types = feeds.values()
    assert ids.shape == mask.shape == types.shape == (64, 40)
    assert {value.dtype for value in feeds.values()} == {np.dtype(np.int64)}
    lengths = mask.sum(1)
    np.testing.assert_array_equal(mask, np.arange(40) < lengths[:, None])
    assert lengths.min() >= 10
    assert lengths.max() == 40
    assert len(set(lengths.tolist())) > 10
    padding = 1 if name == "roberta" else 0
    assert (ids[mask == 0] == padding).all()
    assert (ids[mask == 1] > padding).all()
    assert ids.max() < 60
    assert set(types.reshape(-1).tolist()) == ({0} if name == "roberta" else {0, 1})
    assert model.feeds(2)["input_ids.1"].shape == (2, 48)


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_follow_from_the_seed(name: str) -> None:
    model = small(name)
    first, again, other = (model.feeds(2, seed=seed) for seed in (1, 1, 2))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert any(not np.array_equal(first[key], other[key]) for key in first)


def test_sampled_frames_and_images() -> None:
    masks = small("conformer").feeds(64)["src_pad_mask"]
    assert masks.dtype == np.bool_
    real = (~masks).sum(1)
    np.testing.assert_array_equal(masks, np.arange(16) >= real[:, None])
    assert (real.min(), real.max()) == (8, 16)
    images = small("resnet50").feeds(16)["input_1.1"]
    assert images.shape == (16, 3, 32, 32)
    assert images.dtype == np.float32
    assert 0.8 < images.std() < 1.2


@pytest.mark.parametrize("name", ["bert", "albert", "roberta", "conformer"])
def test_random_weights_keep_tokens_apart(name: str) -> None:
    """Through twelve layers, where those of usual initialisations become all alike."""
    config: Any = CONFIGS[name]
    depth = "layers" if name == "conformer" else "num_hidden_layers"
    config = type(config)(**{**vars(config), depth: 12})
    hidden = ("last_hidden_state",)
    if name == "conformer":
        model, output = zoo.conformer(config), "memory"
        feeds = small(name).feeds(2)
        real = ~feeds["src_pad_mask"]
    else:
        inputs = ("input_ids.1", "attention_mask.1", "token_type_ids.1")
        model = getattr(zoo, name)(config, outputs=hidden, inputs=inputs)
        output, feeds = hidden[0], small(name).feeds(2)
        real = feeds["attention_mask.1"] == 1
    tokens = run_onnx(model, feeds)[output][real]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    likeness = tokens @ tokens.T
    count = len(tokens)
    assert (likeness.sum() - count) / (count * (count - 1)) < 0.5


# What the architectures compute


IDS = np.array([[1, 7, 30, 2, 9], [5, 11, 59, 1, 1]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TYPES = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])

# By transformers 5.24 and PyTorch 2.13, on the weights of `wave_weights`.
ALBERT_START = [
    [-0.11061, -0.06734, 0.17599, 0.30513, 0.41978],
    [-0.00624, 0.48639, 0.31813, -0.10784, -0.00551],
]
ROBERTA_START = [
    [-1.28591, -1.37547, -0.65765, -1.32829, 1.81796],
    [-0.26060, -1.21089, -1.30086, -1.30939, -1.30939],
]
CONFORMER_FRAMES = [
    [[-1.17506, 2.01352, -0.70855], [-0.99632, 2.00159, -0.94026]],
    [[-1.43145, 1.99696, -0.28321], [-1.15287, 2.03289, -0.69217]],
]


def test_albert_is_the_published_network() -> None:
    config = CONFIGS["albert"]
    assert isinstance(config, zoo.AlbertConfig)
    weights = wave_weights(albert_model.weight_shapes(config))
    feeds = {"input_ids.1": IDS, "attention_mask.1": MASK, "token_type_ids.1": TYPES}
    got = run_onnx(zoo.albert(config, weights), feeds)["start_logits"]
    np.testing.assert_allclose(got, ALBERT_START, atol=2e-5)


def test_roberta_is_the_published_network() -> None:
    config = CONFIGS["roberta"]
    assert isinstance(config, zoo.RobertaConfig)
    weights = wave_weights(bert_model.weight_shapes(config, head=True))
    feeds = {"input_ids.1": IDS, "attention_mask.1": MASK, "token_type_ids.1": 0 * TYPES}
    got = run_onnx(zoo.roberta(config, weights), feeds)["start_logits"]
    np.testing.assert_allclose(got, ROBERTA_START, atol=2e-5)


def test_the_conformer_is_that_of_torchaudio() -> None:
    config = CONFIGS["conformer"]
    assert isinstance(config, zoo.ConformerConfig)
    weights = wave_weights(conformer_model.weight_shapes(config))
    image = np.sin(np.arange(2 * 3 * 16 * 64) * 0.37).reshape(2, 3, 16, 64).astype(np.float32)
    feeds = {"src": image, "src_pad_mask": np.arange(16) >= np.array([[16], [9]])}
    got = run_onnx(zoo.conformer(config, weights), feeds)["memory"]
    np.testing.assert_allclose(got[:, [0, 8], :3], CONFORMER_FRAMES, atol=2e-5)


def test_albert_has_one_copy_of_its_weights() -> None:
    model = small("albert").build()
    uses = Counter(node.input[1] for node in model.graph.node if node.op_type == "MatMul")
    shared = [name for name in uses if name.startswith(albert_model.SHARED)]
    assert len(shared) == 6
    assert all(uses[name] == 2 for name in shared)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))


def test_roberta_counts_positions_over_padding() -> None:
    """Padding in front does not move the tokens behind it."""
    model = small("roberta").build()

    def logits(ids: list[int]) -> Array:
        row = np.array([ids])
        feeds = {
            "input_ids.1": row,
            "attention_mask.1": (row != 1).astype(np.int64),
            "token_type_ids.1": 0 * row,
        }
        return run_onnx(model, feeds)["start_logits"][0]

    plain = logits([7, 8, 9])
    np.testing.assert_allclose(logits([1, 1, 7, 8, 9])[2:], plain, atol=1e-5)
    np.testing.assert_allclose(logits([7, 1, 8, 9])[[0, 2, 3]], plain, atol=1e-5)
    assert abs(logits([7, 9, 8])[0] - plain[0]) > 1e-3


def test_outputs_and_input_names_are_chosen() -> None:
    for name in TEXT:
        config = CONFIGS[name]
        build = getattr(zoo, name)
        plain = build(config, outputs=("last_hidden_state",))
        assert [v.name for v in plain.graph.input] == [
            "input_ids",
            "attention_mask",
            "token_type_ids",
        ]
        other = build(config, outputs=("end_logits", "embedding"), inputs=("a", "b", "c"))
        onnx.checker.check_model(other, full_check=True)
        assert [v.name for v in other.graph.input] == ["a", "b", "c"]
        assert [v.name for v in other.graph.output] == ["end_logits", "embedding"]
        with pytest.raises(SpuError, match=r"\['a', 'a', 'b'\] are not three names"):
            build(config, inputs=("a", "a", "b"))
        with pytest.raises(SpuError, match="unknown output 'logits'"):
            build(config, outputs=("logits",))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_groups": 2}, "num_hidden_groups 2 is not supported; use a model whose"),
        ({"inner_group_num": 3}, "inner_group_num 3 is not supported"),
        ({"hidden_act": "swish"}, "'swish' is not known"),
    ],
)
def test_configurations_that_albert_has_not(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuError, match=message):
        zoo.AlbertConfig.from_dict(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"heads": 3}, "d_model 256 is not a multiple of heads 3"),
        ({"kernel": 30}, "kernel 30 is even; use an odd number"),
        ({"width": 510}, "64 x 510 cannot be divided by 4"),
    ],
)
def test_configurations_that_the_conformer_has_not(config: dict[str, int], message: str) -> None:
    with pytest.raises(SpuError, match=message):
        zoo.ConformerConfig(**config)
