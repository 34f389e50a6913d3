"""What the layers offer to the files: topology kinds, model families, readers and algorithms."""

from __future__ import annotations

from collectives import OFFERED
from configs.loader import Vocabulary
from topology import TOPOLOGY_KINDS
from workloads.gguf_weights import gguf_model
from workloads.huggingface import huggingface_model
from workloads.models import MODEL_FAMILIES

VOCABULARY = Vocabulary(
    topology_kinds=TOPOLOGY_KINDS,
    model_families=MODEL_FAMILIES,
    model_readers={".gguf": gguf_model, "/": huggingface_model},
    algorithms=OFFERED,
)
