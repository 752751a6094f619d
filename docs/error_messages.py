"""The messages of all HTTP errors, found where the code makes the errors, and an example of each."""
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


#: Field values of one example error per code; the example message in the table is the error's own `str()`.
EXAMPLES: dict[str, dict[str, Any]] = {
    "answer_too_late": {"limit_s": 1.5},
    "crashed": {},
    "inference_timeout": {"limit_s": 1.0},
    "output_not_finite": {"name": "action"},
    "computation_too_long": {"found": 1000, "limit_s": 1.5, "most": 120},
    "body_not_json": {"reason": "unexpected character, expected a JSON value: line 1 column 1 (char 0)"},
    "body_not_object": {"found": "a list"},
    "body_too_large": {"limit": 1000},
    "compression_invalid": {"coding": "gzip", "reason": "it is cut off"},
    "content_encoding_unsupported": {"found": "br"},
    "episode_ambiguous": {"found": 2},
    "explore_unsupported": {},
    "feedback_invalid": {"path": "rewards[0].reward", "found": "NaN", "expected": "a finite number"},
    "header_invalid": {
        "name": "X-Episode-Step",
        "found": "-1",
        "expected": "an integer from 0 to 2**53, and an episode",
    },
    "inference_invalid": {"path": "inputs[0].shape", "found": "[2, -2]", "expected": "a list of lengths"},
    "invocation_invalid": {"reason": "observations[0] has shape (3,), expected (4,) float32"},
    "invocation_malformed": {
        "reason": "the body is a list, expected an object with one of inputs, instances, dataframe_split, "
        "dataframe_records"
    },
    "journal_full": {},
    "key_unknown": {"key": "x", "known": "observation, state, explore, seed, details, episode, step, reward"},
    "media_type_unsupported": {"found": '"text/plain"'},
    "method_not_allowed": {"method": "PUT", "path": "/", "allowed": ("GET", "POST")},
    "model_not_served": {"name": "other", "served": "cartpole-ppo"},
    "observation_ambiguous": {},
    "observation_encoding": {
        "path": "observation",
        "reason": "base64 holds 3 bytes, expected 16 for shape (4,) float32",
    },
    "observation_key_missing": {"path": "observation.arm", "found": 'no key "position"', "expected": "grip, position"},
    "observation_key_unknown": {
        "path": "observation.arm",
        "found": 'an unknown key "color"',
        "expected": "grip, position",
    },
    "observation_length": {"path": "observation.goal", "found": "a list of 1", "expected": "2 elements"},
    "observation_missing": {"found": "no key"},
    "observation_not_finite": {"path": "observation[3]", "found": "NaN", "expected": "a finite float32"},
    "observation_range": {"path": "observation", "found": "7", "expected": "an integer from 0 to 4"},
    "observation_shape": {"path": "observation", "found": "shape (3,)", "expected": "(4,) float32"},
    "observation_type": {"path": "observation", "found": 'the string "abc"', "expected": "(4,) float32"},
    "observations_too_many": {"found": 5000, "limit": 4096},
    "option_invalid": {"name": "seed", "found": "-1", "expected": "an integer from 0 to 2**64 - 1"},
    "overloaded": {"limit": 256},
    "path_unknown": {"path": "/nowhere", "known": ("/", "/model", "/health")},
    "play_busy": {"limit": 2},
    "pin_invalid": {"found": "v3"},
    "policy_failed": {"reason": "out of memory"},
    "state_invalid": {"path": "state", "reason": "was not written by this server, or was changed"},
    "unauthorized": {"given": False},
    "version_not_served": {"name": "cartpole-ppo", "version": "4", "served": "3"},
}


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
