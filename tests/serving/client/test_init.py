import subprocess
import sys

import pytest

REQUESTS = {"requests", "urllib3", "idna", "certifi", "charset_normalizer"}
AIOHTTP = {
    *("aiohttp", "aiohappyeyeballs", "aiosignal", "attr", "attrs", "frozenlist", "idna", "multidict", "propcache"),
    *("typing_extensions", "yarl"),
}
OPTIONAL = {"brotli", "_brotli", "brotlicffi", "zstandard", "h2", "simplejson", "_distutils_hack"}
"""Modules that requests and aiohttp import if they happen to be installed."""

IMPORT = """
import sys
from serving.client import {name}
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
installed = [file.split("site-packages/")[1] for file in files if "site-packages/" in file]
print(*(file.split("/")[0].split(".")[0] for file in installed))
print(*(name for name in sys.modules if name.partition(".")[0] == "serving"))
"""


@pytest.mark.parametrize(
    ("name", "module", "needed"), [("PolicyClient", "client", REQUESTS), ("AsyncPolicyClient", "async_client", AIOHTTP)]
)
def test_each_client_needs_its_http_library_and_no_other_package(name: str, module: str, needed: set[str]) -> None:
    command = [sys.executable, "-c", IMPORT.format(name=name)]
    packages, ours = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    assert set(packages.split()) - OPTIONAL <= needed
    rooms = {"serving", "serving.errors", "serving.client"}
    episodes = ("episodes", "episodes.batches", "episodes.episode", "episodes.features")
    modules = ("core", "errors", "proxies", "retry", module, *episodes)
    assert set(ours.split()) == rooms | {f"serving.client.{each}" for each in modules}


def test_the_former_path_of_the_asyncio_client_is_importable() -> None:
    from serving import async_client
    from serving.client import AsyncPolicyClient

    assert async_client.AsyncPolicyClient is AsyncPolicyClient


def test_an_unknown_name_raises_attribute_error() -> None:
    import serving.client

    with pytest.raises(AttributeError, match=r"module 'serving\.client' has no attribute 'Nothing'"):
        _ = serving.client.Nothing
