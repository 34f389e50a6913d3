"""The messages of Chakra execution traces, by their field numbers, and their framing in files.

A file is a `GlobalMetadata` and then one `Node` after the other, each behind its length as a varint (MLCommons Chakra,
mlcommons/chakra@21585d8:schema/protobuf/et_def.proto and src/third_party/utils/protolib.py). The messages are built
from the tables here when the module is imported; nothing is generated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from io import BytesIO
from typing import IO, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from configs.errors import ConfigError

PACKAGE = "ChakraProtoMsg"
VERSION = "0.0.4"
"""Of the schema, as its own tools write it."""


class NodeType(IntEnum):
    """What a node is."""

    INVALID = 0
    METADATA = 1
    MEM_LOAD = 2
    MEM_STORE = 3
    COMP = 4
    COMM_SEND = 5
    COMM_RECV = 6
    COMM_COLL = 7


COMM_TYPES: Mapping[str, int] = {
    "all_reduce": 0, "reduce": 1, "all_gather": 2, "gather": 3, "scatter": 4, "broadcast": 5, "all_to_all": 6,
    "reduce_scatter": 7, "barrier": 9,
}  # fmt: skip
"""The number of each collective; 8 is a reduce_scatter of equal blocks."""
OPERATIONS: Mapping[int, str] = {number: op for op, number in COMM_TYPES.items()} | {8: "reduce_scatter"}

_VALUES = (
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
    "sfixed64", "bool", "string", "bytes",
)  # fmt: skip
"""The types of attributes, in the order of their field numbers: 3 and 4 for a double and a list of them, and so on."""
_FIELDS: Mapping[str, tuple[tuple[str, int, str], ...]] = {
    "GlobalMetadata": (("version", 1, "string"), ("attr", 2, "*AttributeProto")),
    "Node": (
        ("id", 1, "uint64"), ("name", 2, "string"), ("type", 3, "NodeType"), ("ctrl_deps", 4, "*uint64"),
        ("data_deps", 5, "*uint64"), ("start_time_micros", 6, "uint64"), ("duration_micros", 7, "uint64"),
        ("inputs", 8, "IOInfo"), ("outputs", 9, "IOInfo"), ("attr", 10, "*AttributeProto"),
    ),
    "IOInfo": (("values", 1, "string"), ("shapes", 2, "string"), ("types", 3, "string")),
    **{f"{kind.capitalize()}List": (("values", 1, f"*{kind}"),) for kind in _VALUES},
}  # fmt: skip
"""name, number and type of each message's fields; * before a type: many of it."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="et_def.proto", package=PACKAGE, syntax="proto3")
    enum = file.enum_type.add(name="NodeType")
    for node_type in NodeType:
        enum.value.add(name=f"{node_type.name}_NODE", number=node_type.value)
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, type_name in fields:
            _add(message, field, number, type_name)
    attribute = file.message_type.add(name="AttributeProto")
    _add(attribute, "name", 1, "string")
    _add(attribute, "doc_string", 2, "string")
    attribute.oneof_decl.add(name="value")
    for i, kind in enumerate(_VALUES):
        for suffix, number, type_name in (("val", 3, kind), ("list", 4, f"{kind.capitalize()}List")):
            _add(attribute, f"{kind}_{suffix}", number + 2 * i, type_name).oneof_index = 0
    return file


def _add(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, type_name: str
) -> descriptor_pb2.FieldDescriptorProto:
    kinds = descriptor_pb2.FieldDescriptorProto
    many, type_name = type_name.startswith("*"), type_name.removeprefix("*")
    field = message.field.add(
        name=name, number=number, label=kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
    )  # fmt: skip
    if type_name in _VALUES:
        field.type = kinds.Type.Value(f"TYPE_{type_name.upper()}")
    else:
        field.type = kinds.TYPE_ENUM if type_name == "NodeType" else kinds.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{type_name}"
    return field


_MESSAGES = message_factory.GetMessages([_file()], pool=descriptor_pool.DescriptorPool())
Node: Any = _MESSAGES[f"{PACKAGE}.Node"]
GlobalMetadata: Any = _MESSAGES[f"{PACKAGE}.GlobalMetadata"]


def attribute(message: Any, name: str, kind: str, value: Any) -> None:
    """Add an attribute to a node or to the metadata; a list where the value is one."""
    added = message.attr.add(name=name)
    if isinstance(value, list | tuple):
        target = getattr(added, f"{kind}_list")
        target.SetInParent()  # so that an empty list is one
        target.values.extend(value)
    else:
        setattr(added, f"{kind}_val", value)


def attributes(message: Any) -> dict[str, Any]:
    """Return the attributes of a node or of the metadata, lists as tuples."""
    found: dict[str, Any] = {}
    for one in message.attr:
        which = one.WhichOneof("value") or ""
        value: Any = getattr(one, which) if which else None
        found[one.name] = tuple(value.values) if which.endswith("_list") else value
    return found


def write_messages(file: IO[bytes], messages: Iterable[Any]) -> None:
    """Write messages, each behind its length."""
    for message in messages:
        serialize_length_prefixed(message, file)


def read_messages(data: bytes, name: str) -> Iterator[Any]:
    """Yield the metadata and the nodes of a file; `name` is what errors call it. Raises ConfigError for other bytes."""
    stream = BytesIO(data)
    kind, n = GlobalMetadata, 0
    while stream.tell() < len(data):
        at = stream.tell()
        try:
            message = parse_length_prefixed(kind, stream)
        except (DecodeError, ValueError, IndexError, EOFError, OSError, RuntimeError) as error:
            why = f"message {n}, at byte {at}, cannot be read ({str(error) or type(error).__name__})"
            accepted = "a Chakra execution trace: metadata and nodes, each behind its length"
            raise ConfigError((f"{name}: {why}; accepted: {accepted}",)) from None
        yield message
        kind, n = Node, n + 1
