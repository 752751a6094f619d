"""`make mutants`: puts small faults into the code, one at a time, and checks that a test of the same room fails.

The faults are drawn with a seed, so that two runs on the same code draw the same ones. Each one is tried in a copy of
the project: the tests of the file come first, then the tests of its room. The exit status is 1 if fewer than 90% of
the faults are noticed; the surviving ones are listed.

    python -m tests.mutants [--seed 0] [--number 60] [--room serving/policy]
"""

import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

PROJECT = Path(__file__).parent.parent
ROOMS = [
    *("serving/policy", "serving/registry", "serving/replica", "serving/rollout"),
    *("pipeline/registry", "pipeline/export", "pipeline/training"),
    *("serving/experiments", "pipeline/experiment", "pipeline/ope", "pipeline/drift", "pipeline/learning"),
]
QUICK = "not (e2e or long or conformance or stores or exports)"
"""The tests that are tried: those that take seconds."""
WANTED = 0.9
TIMEOUT_S = 240

#: Larger numbers are times and sizes, where one more is no fault.
LARGEST_NUMBER = 100

OPPOSITES: dict[type[ast.AST], str] = {
    ast.Lt: ">=",
    ast.GtE: "<",
    ast.Gt: "<=",
    ast.LtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}


@dataclass(frozen=True)
class Fault:
    """One change of one place."""

    file: Path
    line: int
    start: int
    end: int
    """Offsets in the file's bytes."""
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.before!r} -> {self.after!r}"


class Finder:
    """Finds the places of a file that a fault can be put into."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.source = (PROJECT / file).read_bytes()
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def faults(self) -> Iterator[Fault]:
        """Yield a fault for each comparison, condition, number, truth value, `and`, `or`, and raised error."""
        yield from self._within(ast.parse(self.source))

    def _within(self, node: ast.AST) -> Iterator[Fault]:
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("logger.", "Field", "field", "click.")):
            return  # its arguments are texts and defaults
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return  # an assertion of the code about itself
        yield from self._at(node)
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._within(child)

    def _at(self, node: ast.AST) -> Iterator[Fault]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = self._text(node.left), self._text(node.comparators[0])
            yield self._fault(node, f"({left} {OPPOSITES[type(node.ops[0])]} {right})")
        elif isinstance(node, ast.BoolOp):
            word = " or " if isinstance(node.op, ast.And) else " and "
            yield self._fault(node, "(" + word.join(f"({self._text(value)})" for value in node.values) + ")")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield self._fault(node, f"bool({self._text(node.operand)})")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield self._fault(node, str(not node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value <= LARGEST_NUMBER:
            yield self._fault(node, f"({node.value!r} + 1)")
        elif isinstance(node, ast.Raise) and node.exc is not None:
            yield self._fault(node, "pass")

    def _span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _fault(self, node: ast.AST, after: str) -> Fault:
        start, end = self._span(node)
        return Fault(self.file, node.lineno, start, end, self._text(node), after)


def drawn(rooms: list[str], number: int, seed: int) -> list[Fault]:
    """Draw faults, the same number from each room."""
    random_state = random.Random(seed)
    found = []
    for position, room in enumerate(rooms):
        files = sorted((PROJECT / room).rglob("*.py"))
        faults = [fault for file in files for fault in Finder(file.relative_to(PROJECT)).faults()]
        share = (number + len(rooms) - 1 - position) // len(rooms)
        found += random_state.sample(faults, min(share, len(faults)))
    return found


def is_noticed(fault: Fault, copy: Path) -> bool:
    """Whether a test fails with the fault. The copy of the project is as before afterwards."""
    file = copy / fault.file
    source = file.read_bytes()
    file.write_bytes(source[: fault.start] + fault.after.encode() + source[fault.end :])
    try:
        room = Path("tests") / fault.file.parent
        own = room / f"test_{fault.file.name}"
        return any(fails(tests, copy) for tests in (own, room) if (copy / tests).exists())
    finally:
        file.write_bytes(source)


def fails(tests: Path, copy: Path) -> bool:
    """Whether these tests fail, or do not end."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", QUICK, str(tests)]
    process = subprocess.Popen(
        command,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(TIMEOUT_S) not in {0, 5}  # 5: no test was selected
    except subprocess.TimeoutExpired:
        return True
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@click.command()
@click.option("--seed", default=0, show_default=True, help="Which faults are drawn.")
@click.option("--number", default=108, show_default=True, help="How many faults are drawn.")
@click.option("--room", "rooms", multiple=True, help="Only this room; may be repeated.  [default: all]")
def main(seed: int, number: int, rooms: tuple[str, ...]) -> None:
    """Count how many small faults the tests notice."""
    faults = drawn(list(rooms) or ROOMS, number, seed)
    survivors = []
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "project")
        ignored = shutil.ignore_patterns(".venv", ".git", "mlruns", "mlartifacts", "mlflow.db*", "*_cache", "results")
        shutil.copytree(PROJECT, copy, ignore=ignored)
        for room in rooms or ROOMS:
            if fails(Path("tests", room), copy):
                raise click.ClickException(f"The tests of {room} fail without any fault: pytest tests/{room}")
        for position, fault in enumerate(faults, 1):
            begun = time.monotonic()
            noticed = is_noticed(fault, copy)
            if not noticed:
                survivors.append(fault)
            verdict = "noticed " if noticed else "SURVIVED"
            click.echo(f"{position:3}/{len(faults)} {verdict} {time.monotonic() - begun:4.0f} s  {fault}")
    share = 1 - len(survivors) / len(faults)
    click.echo(f"{len(faults) - len(survivors)} of {len(faults)} faults noticed ({share:.0%}), {WANTED:.0%} wanted.")
    sys.exit(share < WANTED)


if __name__ == "__main__":
    main()
