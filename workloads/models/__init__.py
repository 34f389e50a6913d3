"""Model families: one file each, one row here."""

from workloads.models.family import Stage
from workloads.models.llama import LlamaShape

MODEL_FAMILIES: dict[str, type] = {
    "llama": LlamaShape,
}
"""The shape class of every family; it follows `workloads.models.family.ModelShape`."""

__all__ = ["MODEL_FAMILIES", "LlamaShape", "Stage"]
