"""The kinds of documents: what each becomes, what it refers to, and the words that stand for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from configs.spec.chip import ChipSpec
from configs.spec.communication import CommunicationSpec
from configs.spec.experiment import ExperimentSpec
from configs.spec.kernels import KernelsSpec
from configs.spec.model import ModelSpec
from configs.spec.software import SoftwareSpec
from configs.spec.system import SystemSpec


@frozen
class DocumentKind:
    """A kind of documents, and a folder of the catalogue.

    slots: which keys hold a reference, and to which kind.
    words: what stands for a whole document, and for no file.
    """

    spec: type
    slots: Mapping[str, str] = field(factory=dict)
    words: Mapping[str, Any] = field(factory=dict)


DOCUMENT_KINDS: Mapping[str, DocumentKind] = {
    "chips": DocumentKind(ChipSpec, slots={"kernels": "kernels"}),
    "kernels": DocumentKind(KernelsSpec, words={"ideal": KernelsSpec()}),
    "systems": DocumentKind(SystemSpec, slots={"chip": "chips", "communication": "communication"}),
    "software": DocumentKind(SoftwareSpec, words={"ideal": SoftwareSpec()}),
    "models": DocumentKind(ModelSpec),
    "experiments": DocumentKind(ExperimentSpec, slots={"system": "systems", "model": "models", "software": "software"}),
    "communication": DocumentKind(CommunicationSpec, words={"ideal": CommunicationSpec()}),
}
