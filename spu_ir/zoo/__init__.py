"""
Builders of known models as ONNX, from real or random weights, without their frameworks.

`MODELS` are the five published ones at their interface (docs/models.md). The builders take
HuggingFace's, torchvision's and torchaudio's key names, as arrays, tensors or safetensors files;
`minilm` brings its own weights; `python -m spu_ir.zoo` writes models as files, pruned by
magnitude if asked to.
"""

from .albert_model import AlbertConfig, albert
from .bert_model import BertConfig, bert
from .common import save
from .conformer_model import ConformerConfig, conformer
from .linear_model import linear
from .minilm_model import minilm, minilm_config, minilm_tokenizer, minilm_weights
from .registry import MODELS, Published, published
from .resnet import ResNetConfig, resnet50
from .roberta_model import RobertaConfig, roberta
from .weights import read_weights

__all__ = [
    "MODELS",
    "AlbertConfig",
    "BertConfig",
    "ConformerConfig",
    "Published",
    "ResNetConfig",
    "RobertaConfig",
    "albert",
    "bert",
    "conformer",
    "linear",
    "minilm",
    "minilm_config",
    "minilm_tokenizer",
    "minilm_weights",
    "published",
    "read_weights",
    "resnet50",
    "roberta",
    "save",
]
