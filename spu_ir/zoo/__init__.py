"""
Builders of known models as ONNX, from real or random weights, without their frameworks.

`bert` and `resnet50` take HuggingFace's and torchvision's key names; `minilm` brings its own
weights; `python -m spu_ir.zoo` writes models as files, pruned by magnitude if asked to.
"""

from .bert_model import BertConfig, bert
from .common import save
from .linear_model import linear
from .minilm_model import minilm, minilm_config, minilm_tokenizer, minilm_weights
from .resnet import resnet50

__all__ = [
    "BertConfig",
    "bert",
    "linear",
    "minilm",
    "minilm_config",
    "minilm_tokenizer",
    "minilm_weights",
    "resnet50",
    "save",
]
