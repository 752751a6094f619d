"""The files that a Python process needs: its modules, shared libraries, and what libraries read of the system."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import all_suffixes
from pathlib import Path

SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/usr/share"),
    "/usr/local/cuda",
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/fonts", "/etc/passwd", "/etc/glvnd", "/etc/OpenCL", "/etc/vulkan"),
    *("/sys/devices", "/sys/bus", "/sys/class", "/sys/fs/cgroup"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/devices", "/proc/driver"),
)

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def gpu_devices() -> list[Path]:
    """Return the devices of NVIDIA's driver and of the kernel's graphics drivers."""
    return [*Path("/dev").glob("nvidia*"), Path("/dev/dri")]


def library_directories() -> Iterator[Path]:
    """Yield the directories of Python, its packages and shared libraries."""
    yield from map(Path, SYSTEM)
    for prefix in {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}:
        for name in ("lib", "lib64", "share"):
            yield Path(prefix, name)
    # The dynamic linker reads an empty entry as the working directory.
    yield from map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))


def module_files(modules: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the modules and packages in the directories of `sys.path`, and those of the named modules.

    Other files beside them, such as a `.env` in a project's directory, are left out.

    Args:
        modules: names of modules, which may be in packages without `__init__.py` or be installed as editable.
    """
    libraries = tuple(library_directories())
    for directory in map(Path, filter(None, sys.path)):
        if os.path.isfile(directory):  # noqa: PTH113 - Path.is_file raises an error for a file that may not be seen
            yield directory  # an archive of modules
        elif not any(directory.is_relative_to(library) for library in libraries):
            yield from _modules_in(directory)
    for module in modules:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(module.partition(".")[0])
            if spec is not None:
                yield from map(Path, spec.submodule_search_locations or [spec.origin or os.devnull])


def _modules_in(directory: Path) -> Iterator[Path]:
    names: list[str] = []
    with suppress(OSError):
        names = [file.name for file in directory.iterdir()]
    if any(name.endswith(".dist-info") for name in names):
        yield directory  # pip's: packages with their data and libraries
        return
    for name in names:
        is_module = name == "__pycache__" or name.endswith((*all_suffixes(), ".egg-info"))
        if is_module or os.path.isfile(directory / name / "__init__.py"):  # noqa: PTH113 - as above
            yield directory / name
