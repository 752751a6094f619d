"""Finds the messages of all HTTP errors where the code makes the errors, so that no table of them can lack one."""
# ruff: noqa: INP001  # A script beside the pages, not a package.

import ast
import importlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent


class _Varies(str):
    """A text that also stands for a number in a template."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(self)


VARIES = _Varies("…")
"""Stands for the part of a message that depends on the request or the policy."""


def messages() -> dict[str, list[str]]:
    """Return all messages of each error code, sorted."""
    from serving.errors import http_errors

    importlib.import_module("serving.app")  # imports every room, and so every module that defines errors
    errors = {error.__name__: error for error in http_errors()}
    found: dict[str, set[str]] = {}
    for file in sorted((PROJECT / "serving").rglob("*.py")):
        module = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
        tree = ast.parse(file.read_text())
        for function in [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]:
            for name, arguments in _made(function, errors):
                values = [[*_texts(value, function, module)] for value in arguments]
                found.setdefault(errors[name].code, set()).update(_written(errors[name], values))
    return {code: sorted(texts) for code, texts in sorted(found.items())}


def _made(function: ast.AST, names: Iterable[str]) -> Iterator[tuple[str, list[ast.expr]]]:
    """Yield the name and the positional arguments of each error that a function makes."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node.func.id, node.args
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id in names:
            yield node.exc.id, []


def _texts(node: ast.expr, function: ast.AST, module: str) -> Iterator[str]:
    """Yield the texts that an expression can have, as far as the code shows them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else VARIES for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, function, module)
        yield from _texts(node.orelse, function, module)
    elif isinstance(node, ast.BoolOp):
        yield from itertools.chain.from_iterable(_texts(value, function, module) for value in node.values)
    elif isinstance(node, ast.Name):
        yield from _texts_of_name(node.id, function, module)
    else:
        yield VARIES


def _texts_of_name(name: str, function: ast.AST, module: str) -> Iterator[str]:
    assignments = [each for each in ast.walk(function) if isinstance(each, ast.Assign)]
    local = [each.value for each in assignments if any(ast.unparse(target) == name for target in each.targets)]
    constant = getattr(importlib.import_module(module), name, VARIES)
    if local:
        yield from itertools.chain.from_iterable(_texts(value, function, module) for value in local)
    else:
        yield constant if isinstance(constant, str) else VARIES


def _written(error: Any, values: list[list[str]]) -> Iterator[str]:
    """Yield the messages of an error for all combinations of its arguments; those that are not given vary."""
    omitted = [_defaults(field) for field in fields(error)[len(values) :]]
    for arguments in itertools.product(*values, *omitted):
        yield " ".join(str(error(*arguments)).split())


def _defaults(field: Field[Any]) -> list[Any]:
    if field.default is not MISSING:
        return [field.default]
    return [True, False] if field.type is bool else [VARIES]
