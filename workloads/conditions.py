"""Conditions on the points of a sweep, such as ``tp * pp == n_chips``: arithmetic and comparisons of named values."""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from attrs import field, frozen

from configs.errors import ConfigError
from configs.problems import shown, unknown

_LONGEST = 1000
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_NAMES = (ast.Name, ast.Attribute, ast.Subscript)
_ALLOWED = (
    ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Compare, *_NAMES,
    ast.Load, ast.List, ast.Tuple, ast.Constant, *_BINARY, *_COMPARE,
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z_]\w*(\[\d+\])*(\.[A-Za-z_]\w*(\[\d+\])*)*")
_WORDS = {"true": True, "false": False}
_ACCEPTED = "numbers, texts, lists, names, + - * / // %, comparisons, in, and, or, not, parentheses"


@frozen
class Condition:
    """What must hold of a point; `names` are the values that it asks for.

    >>> condition = Condition.parse("tp * pp == n_chips and system != 'dgx-h100'")
    >>> condition.holds({"tp": 2, "pp": 4, "n_chips": 8, "system": "dgx-a100"}), sorted(condition.names)
    (True, ['n_chips', 'pp', 'system', 'tp'])
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr = field(repr=False, eq=False)

    @classmethod
    def parse(cls, text: object) -> Condition:
        """Return the condition of a text; raises ConfigError if it is none."""
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise ConfigError((f"{shown(text)} is not a condition; accepted: a text such as 'tp * pp == n_chips'",))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd literals, such as 1in
                tree = ast.parse(text.strip(), mode="eval").body
            ast.unparse(tree)  # so that what is nested too deep is refused here
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ConfigError((f"{shown(text)} is not a condition; accepted: {_ACCEPTED}",)) from None
        names: set[str] = set()
        for node in ast.walk(tree):
            if not isinstance(node, _ALLOWED) or not _is_plain(node):
                part = shown(ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__)
                raise ConfigError((f"{shown(text)}: {part} cannot stand in a condition; accepted: {_ACCEPTED}",))
        _collect(tree, names)
        return cls(text, frozenset(names), tree)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the condition holds of these named values; raises ConfigError if it cannot be told."""
        try:
            return bool(_value(self._tree, values))
        except (ConfigError, TypeError, ArithmeticError, RecursionError) as error:
            raise ConfigError((f"where {shown(self.text)}: {error}",)) from None

    def check_names(self, known: Collection[str]) -> None:
        """Raise ConfigError for a name that no point has."""
        for name in sorted(self.names.difference(known)):
            raise ConfigError((f"{shown(self.text)}: {unknown(name, 'a value of a point', sorted(known))}",))


def _is_plain(node: ast.AST) -> bool:
    """Tell whether a constant is a number or a text, and a name one that a key can have."""
    if isinstance(node, _NAMES):
        return _NAME.fullmatch(ast.unparse(node)) is not None
    return not isinstance(node, ast.Constant) or isinstance(node.value, int | float | str)


def _collect(node: ast.AST, names: set[str]) -> None:
    if isinstance(node, _NAMES):
        if (name := ast.unparse(node)) not in _WORDS:
            names.add(name)
        return
    for child in ast.iter_child_nodes(node):
        _collect(child, names)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() | ast.Attribute() | ast.Subscript():
            name = ast.unparse(node)
            if name in _WORDS:
                return _WORDS[name]
            if name not in values:
                raise ConfigError((f"this point has no {name}",))
            return values[name]
        case ast.List() | ast.Tuple():
            return [_value(item, values) for item in node.elts]
        case ast.BoolOp():
            results = (_value(item, values) for item in node.values)
            return all(results) if isinstance(node.op, ast.And) else any(results)
        case ast.UnaryOp():
            value = _value(node.operand, values)
            return not value if isinstance(node.op, ast.Not) else -_number(value)
        case ast.BinOp():
            left, right = _value(node.left, values), _value(node.right, values)
            return _BINARY[type(node.op)](_number(left), _number(right))
        case ast.Compare():
            terms = [_value(term, values) for term in (node.left, *node.comparators)]
            return all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, terms, terms[1:], strict=False))
    raise AssertionError(f"{node} was not allowed")


def _number(value: Any) -> Any:
    """Return a number as it is; of anything else arithmetic could make something huge, such as 'x' * 10**9."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError((f"{shown(value)} is not a number; accepted in arithmetic: numbers",))
    return value
