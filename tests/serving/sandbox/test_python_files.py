import sys
from pathlib import Path

import pytest

from serving.sandbox import python_files
from serving.sandbox.python_files import module_files


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on `sys.path` with modules and other files."""
    for name in ("corridor.py", "package/__init__.py", "native.so", "spaces/maze.py", "mlruns/0/meta.yaml", ".env"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def names(project: Path, *modules: str) -> set[str]:
    return {str(file.relative_to(project)) for file in module_files(modules) if file.is_relative_to(project)}


def test_modules_and_packages_are_readable_but_no_files_beside_them(project: Path) -> None:
    assert names(project) == {"corridor.py", "package", "native.so"}


def test_a_package_without_init_is_readable_if_it_is_named(project: Path) -> None:
    assert names(project, "spaces.maze", "nowhere", "os") == {"corridor.py", "package", "native.so", "spaces"}


def test_a_directory_into_which_pip_installed_is_readable_with_its_data(project: Path) -> None:
    (project / "numpy-2.0.dist-info").mkdir()
    assert names(project) == {"."}


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere", "/proc/1/fd", __file__])
    assert list(module_files()) == [Path(__file__)]


def test_libraries_of_the_variable_of_the_linker_are_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", ":/opt/cuda/lib64:")
    found = list(python_files.library_directories())
    assert Path("/opt/cuda/lib64") in found
    assert Path() not in found
