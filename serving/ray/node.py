"""Starts the Ray of one node of a cluster, with the settings that Serve and HAProxy need there."""

import os
import site
import sys
from pathlib import Path
from typing import NoReturn

import serving
from serving.ray import settings


def start(arguments: tuple[str, ...], max_body_bytes: int) -> NoReturn:
    """Replace this process by `ray start` with these arguments, whose processes can import this package.

    Raises the errors of `settings.configure_node`.
    """
    settings.configure_node(max_body_bytes)
    root = str(Path(serving.__file__).parents[1])
    if root not in site.getsitepackages():
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    os.execv(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments])  # noqa: S606 - the user's arguments
