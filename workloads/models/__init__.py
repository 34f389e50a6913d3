"""Model families: one file each, one row here, under the name that config.json (model_type) and GGUF give it."""

from typing import Any

from workloads.models.decoder import DecoderShape
from workloads.models.deepseek import DeepseekShape
from workloads.models.falcon import FalconShape
from workloads.models.family import Stage
from workloads.models.gemma2 import Gemma2Shape
from workloads.models.gpt2 import Gpt2Shape
from workloads.models.gpt_oss import GptOssShape
from workloads.models.llama import LlamaShape
from workloads.models.mistral import MistralShape
from workloads.models.mixtral import MixtralShape
from workloads.models.palm import PalmShape
from workloads.models.phi3 import Phi3Shape
from workloads.models.qwen2 import Qwen2Shape
from workloads.models.qwen3 import Qwen3Shape
from workloads.models.qwen3_moe import Qwen3MoeShape

MODEL_FAMILIES: dict[str, Any] = {
    "deepseek_v3": DeepseekShape,
    "falcon": FalconShape,
    "gemma2": Gemma2Shape,
    "gpt2": Gpt2Shape,
    "gpt_oss": GptOssShape,
    "llama": LlamaShape,
    "mistral": MistralShape,
    "mixtral": MixtralShape,
    "palm": PalmShape,
    "phi3": Phi3Shape,
    "qwen2": Qwen2Shape,
    "qwen3": Qwen3Shape,
    "qwen3_moe": Qwen3MoeShape,
}
"""The shape class of every family.

With a `from_huggingface` of its own and `huggingface_names` it reads Hugging Face folders, with a `from_gguf` and
`gguf_names` GGUF files; without either it has shapes only.
"""

__all__ = ["MODEL_FAMILIES", "DecoderShape", "LlamaShape", "Stage"]
