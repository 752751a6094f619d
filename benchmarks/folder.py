"""`make bench-folder`: a folder that measures another machine, which needs neither a network nor any installation.

It holds the interpreter, the packages of this environment, this project, wrk where it is installed, and a trained
policy. It runs on Linux with the same architecture and a glibc that is not older:

    tar -C FOLDER/.. -c bench-folder | ssh machine tar -x
    ssh machine bench-folder/run
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import click

from benchmarks.registry import registered
from serving.policy.bundle import BUNDLE_FILES

PROJECT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_name("results")
CUDA_PACKAGES = (
    *("onnxruntime-gpu", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cudnn-cu13"),
    *("nvidia-cufft", "nvidia-curand", "nvidia-nvjitlink"),
)
UNUSED = ("playwright", "mypy", "ruff", "schemathesis", "tritonclient", "uv", "pre_commit", "__editable__*", "*.pth")
"""What no benchmark needs, and files that name directories of this machine."""
SYSTEM_LIBRARIES = ("libc.", "libm.", "libpthread.", "libdl.", "librt.", "libutil.", "libgcc_s.", "libstdc++.")
"""Those of glibc and gcc belong to the machine; all other shared libraries are copied."""

RUN = """#!/bin/sh
# Measures this machine: see docs/how-to/benchmark.md. The options are those of benchmarks/cores.py.
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PATH="$here/bin:$PATH" PYTHONPATH="$here/project"
unset PYTHONHOME VIRTUAL_ENV
cd "$here/project" && exec "$here/python/bin/python3.11" -m benchmarks.cores --bundle "$here/bundle" \\
    --output "$here/results" "$@"
"""


@click.command()
@click.option("--output", default=str(RESULTS / "bench-folder"), show_default=True, help="The folder; it is replaced.")
@click.option("--cuda", is_flag=True, help="With onnxruntime-gpu, CUDA and cuDNN, which are downloaded.")
@click.option("--bundle", help="A directory with model.onnx and policy.json.  [default: train CartPole's]")
def main(output: str, bundle: str | None, *, cuda: bool) -> None:
    """Build the folder."""
    folder = Path(output)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for step in (copy_python, copy_packages, copy_project, copy_programs):
        click.echo(f"{step.__name__.replace('_', ' ')} ...", err=True)
        step(folder)
    if cuda:
        exchange_onnxruntime(folder)
    copy_bundle(folder, None if bundle is None else Path(bundle))
    (folder / "run").write_text(RUN)
    (folder / "run").chmod(0o755)
    click.echo(f"Built {folder}. Copy it to the other machine and start {folder.name}/run there.")


def copy_python(folder: Path) -> None:
    """Copy the interpreter and its standard library, which find each other wherever the folder is."""
    base, version = Path(sys.base_prefix), f"python{sysconfig.get_python_version()}"
    (folder / "python" / "bin").mkdir(parents=True)
    shutil.copy2(Path(sys.executable).resolve(), folder / "python" / "bin" / version)
    ignored = shutil.ignore_patterns("site-packages", "test", "idlelib", "tkinter", "ensurepip", "*.a")
    shutil.copytree(base / "lib" / version, folder / "python" / "lib" / version, ignore=ignored)
    copy_libraries(folder, [folder / "python" / "bin" / version, *(folder / "python").rglob("lib-dynload/*.so")])


def copy_packages(folder: Path) -> None:
    """Copy the packages of this environment."""
    shutil.copytree(sysconfig.get_path("purelib"), _packages(folder), ignore=shutil.ignore_patterns(*UNUSED))


def copy_project(folder: Path) -> None:
    """Copy the files of this project that git knows, and the commit."""
    git = ["git", "-C", str(PROJECT)]
    for name in subprocess.run([*git, "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines():
        if (PROJECT / name).is_file() and not name.startswith("docs/"):
            (folder / "project" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / "project" / name)
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    (folder / "project" / "COMMIT").write_text(commit)


def copy_programs(folder: Path) -> None:
    """Copy wrk, if this machine has it; without it, processes of Python generate the load."""
    (folder / "bin").mkdir()
    if (wrk := shutil.which("wrk")) is not None:
        shutil.copy2(wrk, folder / "bin" / "wrk")
        copy_libraries(folder, [Path(wrk)])


def copy_libraries(folder: Path, binaries: list[Path]) -> None:
    """Copy the shared libraries that binaries need, except those of glibc."""
    (folder / "lib").mkdir(exist_ok=True)
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)  # noqa: S607
    for words in map(str.split, done.stdout.splitlines()):
        if len(words) > 2 and words[1] == "=>" and words[2].startswith("/"):  # noqa: PLR2004 - name => path (address)
            library = Path(words[2])
            if not library.name.startswith(SYSTEM_LIBRARIES):
                shutil.copy2(library, folder / "lib" / words[0])


def exchange_onnxruntime(folder: Path) -> None:
    """Install onnxruntime-gpu in the place of onnxruntime, with the folder's own pip: both are the same module."""
    (python,) = (folder / "python" / "bin").iterdir()
    environment = {**os.environ, "LD_LIBRARY_PATH": str((folder / "lib").absolute())}
    pip = [str(python.absolute()), "-m", "pip", "--quiet"]
    subprocess.run([*pip, "uninstall", "--yes", "onnxruntime"], env=environment, check=True)
    options = ["--no-deps", "--constraint", str(PROJECT / "constraints.txt")]
    subprocess.run([*pip, "install", *options, *CUDA_PACKAGES], env=environment, check=True)


def copy_bundle(folder: Path, bundle: Path | None) -> None:
    """Copy a bundle, or train one."""
    (folder / "bundle").mkdir()
    if bundle is not None:
        for name in BUNDLE_FILES:
            shutil.copy2(bundle / name, folder / "bundle" / name)
        return
    click.echo("training a policy ...", err=True)
    with tempfile.TemporaryDirectory() as directory, registered(Path(directory)):
        for name in BUNDLE_FILES:
            shutil.copy2(Path(directory, name), folder / "bundle" / name)


def _packages(folder: Path) -> Path:
    return folder / "python" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


if __name__ == "__main__":
    main()
