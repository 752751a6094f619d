"""`make docs`: writes the generated parts of the documents, which come from the code that they describe.

A generated part of a page is between `<!-- BEGIN name -->` and `<!-- END -->`. `PARTS` maps each name to the function
that returns its Markdown. `tests/docs/test_reference.py` fails while a page differs from what its functions return.
"""
# ruff: noqa: INP001  # A script beside the pages, not a package.

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"

_PART = re.compile(r"(<!-- BEGIN ([\w-]+) -->\n).*?(<!-- END -->)", flags=re.DOTALL)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    columns = list(header)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """Return the text of a cell. A vertical bar becomes an entity, because renderers differ in how they escape it."""
    if "|" not in text:
        return text
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", text).replace("|", "&#124;")


def training_parameters() -> str:
    """Return the table of the fields of TrainConfig."""
    from pipeline.config import BY_ENVIRONMENT, SETTINGS

    rows = []
    for each in SETTINGS:
        constant = f"`{'auto' if each.default is None else each.default}`"
        default = "by environment" if each.name in BY_ENVIRONMENT else constant
        rows.append((f"`{each.name}`", default, each.metadata["help"]))
    return table(("parameter", "default", "meaning"), rows)


def learning_parameters() -> str:
    """Return the table of the fields of LearningSettings."""
    from pipeline.learning.settings import SETTINGS

    rows = (
        (f"`{each.name}`", f"`{each.default}`" if each.default != "" else "", each.metadata["help"])
        for each in SETTINGS
    )
    return table(("parameter", "default", "meaning"), rows)


def _model_fields(first_column: str, model: Any) -> str:
    rows = (
        (f"`{name}`", f"`{'none' if field.default in {None, ()} else field.default}`", field.description or "")
        for name, field in model.model_fields.items()
    )
    return table((first_column, "default", "meaning"), rows)


def server_arguments() -> str:
    """Return the table of the application's arguments."""
    from serving.arguments import Arguments

    return _model_fields("argument", Arguments)


def autoscaling() -> str:
    """Return the table of the fields of the argument `autoscaling`."""
    from serving.arguments import Autoscaling

    return _model_fields("autoscaling", Autoscaling)


def error_codes() -> str:
    """Return the table of all HTTP errors, ordered by status and code, with an example message of each."""
    from docs.error_messages import EXAMPLES
    from serving.errors import http_errors
    from serving.protocols.protocol import INTERNAL_ERROR, INTERNAL_MESSAGE

    importlib.import_module("serving.app")  # imports every room, and so every module that defines errors
    rows = (
        (str(int(error.status)), f"`{error.code}`", str(error(**EXAMPLES[error.code])))
        for error in sorted(http_errors(), key=lambda error: (error.status, error.code))
    )
    internal = ("500", f"`{INTERNAL_ERROR}`", INTERNAL_MESSAGE)
    return table(("status", "code", "example of the message"), (*rows, internal))


def error_messages() -> str:
    """Return the table of all messages of HTTP errors, as the code makes them, ordered by code."""
    from docs.error_messages import messages
    from serving.protocols.protocol import INTERNAL_ERROR, INTERNAL_MESSAGE

    rows = [(f"`{code}`", f"`{text}`") for code, texts in messages().items() for text in texts]
    return table(("error code", "message"), sorted([*rows, (f"`{INTERNAL_ERROR}`", f"`{INTERNAL_MESSAGE}`")]))


def rejection_codes() -> str:
    """Return the table of the reasons for which a replica does not serve a version, ordered by code."""
    from serving.policy.errors import BundleError
    from serving.registry.errors import RegistryError
    from serving.replica.refresh_state import UNEXPECTED

    importlib.import_module("serving.app")
    rows = [(f"`{each.code}`", _first_paragraph(each.__doc__ or "")) for each in _subclasses(BundleError)]
    rows.append((f"`{RegistryError.code}`", "The registry failed while the version was fetched."))
    rows.append((f"`{UNEXPECTED}`", "Any other failure, such as a machine without memory. It is tried again."))
    return table(("code", "reason"), sorted(rows))


def _subclasses(error: type[Any]) -> Iterable[type[Any]]:
    for each in error.__subclasses__():
        yield each
        yield from _subclasses(each)


def python_client() -> str:
    """Return the arguments and methods of the clients, from their docstrings."""
    from serving.client import PolicyClient, RecordedEpisodes
    from serving.client.core import BaseClient
    from serving.client.episodes.episode import Episode

    described = [
        (BaseClient, "PolicyClient"),
        *((getattr(PolicyClient, name), name) for name in CLIENT_METHODS),
        (Episode, "Episode"),
        *((getattr(Episode, name), f"Episode.{name}") for name in EPISODE_METHODS),
        (RecordedEpisodes, "RecordedEpisodes"),
    ]
    return "\n".join(
        f"## {name}\n\n```text\n{name}{_signature(each)}\n\n{inspect.getdoc(each)}\n```\n" for each, name in described
    )


def _signature(function: Any) -> str:
    parameters = list(inspect.signature(function).parameters.values())
    shown = [each.replace(annotation=inspect.Parameter.empty) for each in parameters if each.name != "self"]
    return str(inspect.Signature(shown))


def serving_metrics() -> str:
    """Return the table of the metrics that replicas export."""
    from serving.replica.metrics import DESCRIPTIONS

    return table(("serving metric", "meaning"), ((f"`ray_{name}`", text) for name, text in DESCRIPTIONS.items()))


def cluster_settings() -> str:
    """Return the environment of Ray's processes on a node with two cores, as shell commands."""
    from serving.ray.settings import cluster_settings as node_settings

    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in node_settings(cpus=2).items())
    return f"```sh\n{''.join(lines)}```\n"


def verified_policies() -> str:
    """Return the table of the policies that the conformance suite verifies."""
    from tests.pipeline.cases import CASES

    return table(("verified", "what it covers"), ((f"`{name}`", about) for name, (_, about) in CASES.items()))


def command_line(package: str) -> str:
    """Return a section for each command of `python -m PACKAGE`."""
    import click

    cli = importlib.import_module(f"{package}.cli")
    groups = [each for each in vars(cli).values() if isinstance(each, click.Group)]
    # The module also imports the groups that are commands of its own one.
    group = next(each for each in groups if each.callback.__module__ == cli.__name__)
    return "\n".join(_commands(group, click.Context(group, info_name=f"python -m {package}")))


def _commands(group: Any, parent: Any) -> Iterable[str]:
    """Yield a section for each command of a group, and of the groups in it."""
    import click

    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from _commands(command, click.Context(command, info_name=command.name, parent=parent))
        else:
            yield _command(command, parent)


def _command(command: Any, parent: Any) -> str:
    import click

    context = click.Context(command, info_name=command.name, parent=parent)
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    about = "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(command.help or "").split("\n\n"))
    records = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    rows = ((f"`{names}`", text) for names, text in (record for record in records if record))
    options = "\n" + table(("option", "meaning"), rows) if records else ""
    return f"### {context.command_path.removeprefix('python -m ')}\n\n```text\n{usage}\n```\n\n{about}\n{options}"


def rooms(package: str) -> str:
    """Return the table of a package's rooms and top-level files, the lowest first, with their responsibilities."""
    from tests.test_architecture import ORDER

    rows = []
    for name in ORDER[package]:
        path = PROJECT / package / name.replace(".", "/")
        if not name.startswith("__"):
            shown = f"`{name.replace('.', '/')}{'/' if path.is_dir() else '.py'}`"
            rows.append((shown, _responsibility(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))))
            rows.extend(_parts(PROJECT / package, path, set(ORDER[package])))
    return table((f"in `{package}/`", "responsibility"), rows)


def _parts(package: Path, room: Path, rooms: set[str]) -> Iterable[tuple[str, str]]:
    """Yield a row for each folder in a room that is no room of its own."""
    for file in sorted(room.rglob("*/__init__.py")):
        path = file.parent.relative_to(package)
        above = {".".join(each.parts) for each in (path, *path.parents) if each != room.relative_to(package)}
        if not above & rooms and (about := _responsibility(file)):
            yield f"... `{path}/`", about


def _responsibility(file: Path) -> str:
    """Return the first paragraph of a file's docstring, without importing it."""
    return _first_paragraph(ast.get_docstring(ast.parse(file.read_text())) or "")


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


#: The methods of the clients, in the order of the page.
CLIENT_METHODS = ("act", "act_batch", "answer", "episode", "feedback", "model", "reset", "close")
EPISODE_METHODS = ("act", "reward", "end")

PARTS: dict[str, Callable[[], str]] = {
    "training-parameters": training_parameters,
    "learning-parameters": learning_parameters,
    "server-arguments": server_arguments,
    "autoscaling": autoscaling,
    "error-codes": error_codes,
    "error-messages": error_messages,
    "rejection-codes": rejection_codes,
    "python-client": python_client,
    "serving-metrics": serving_metrics,
    "cluster-settings": cluster_settings,
    "verified-policies": verified_policies,
    "pipeline-commands": lambda: command_line("pipeline"),
    "serving-commands": lambda: command_line("serving"),
    "pipeline-rooms": lambda: rooms("pipeline"),
    "serving-rooms": lambda: rooms("serving"),
}


def generated(text: str) -> str:
    """Return the text of a page with its generated parts made anew.

    Raises:
        KeyError: If the page names a part that no function makes.
    """
    return _PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}", text)


def main() -> None:
    """Write every page whose generated parts are stale, and print its name."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        fresh = generated(text)
        if fresh != text:
            page.write_text(fresh)
            print(page.relative_to(PROJECT))  # noqa: T201  # what a person reads


if __name__ == "__main__":
    main()
