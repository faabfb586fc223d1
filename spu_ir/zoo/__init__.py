"""
Builders of known models as ONNX, from real or random weights, without their frameworks.

`bert` and `resnet50` take HuggingFace's and torchvision's key names; `minilm` brings its own
weights; `prune` makes the FP32 reference of a sparse compilation; `python -m spu_ir.zoo`
writes models as files.
"""

from .bert_model import BertConfig, bert
from .common import save
from .linear_model import linear
from .minilm_model import minilm, minilm_config, minilm_tokenizer, minilm_weights
from .pruning import prune
from .resnet import resnet50

__all__ = [
    "BertConfig",
    "bert",
    "linear",
    "minilm",
    "minilm_config",
    "minilm_tokenizer",
    "minilm_weights",
    "prune",
    "resnet50",
    "save",
]
