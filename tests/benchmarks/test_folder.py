"""The folder of `make bench-folder` runs wherever it is copied to."""

import subprocess
from pathlib import Path

from benchmarks.folder import RUN, SYSTEM_LIBRARIES, copy_python


def test_the_copied_interpreter_finds_its_library_wherever_it_is(tmp_path: Path) -> None:
    copy_python(tmp_path / "built")
    moved = (tmp_path / "built").rename(tmp_path / "moved")
    (python,) = (moved / "python" / "bin").iterdir()
    # Modules with shared libraries that a smaller machine may lack.
    code = "import ctypes, lzma, ssl, sqlite3, sys; print(sys.prefix); print(open('/proc/self/maps').read())"
    libraries = {"LD_LIBRARY_PATH": str(moved / "lib")}
    done = subprocess.run([python, "-c", code], env=libraries, capture_output=True, text=True, check=True)
    prefix, *maps = done.stdout.splitlines()
    assert prefix == f"{moved}/python"
    loaded = {Path(line.split()[-1]) for line in maps if ".so" in line}
    elsewhere = {file.name for file in loaded if not file.is_relative_to(moved)}
    assert not {name for name in elsewhere if not name.startswith((*SYSTEM_LIBRARIES, "ld-"))}, (
        "only glibc is this machine's"
    )


def test_it_starts_its_own_interpreter_with_its_own_files_and_passes_options_on(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    (folder / "project").mkdir(parents=True)
    (folder / "python" / "bin").mkdir(parents=True)
    python = folder / "python" / "bin" / "python3.11"
    python.write_text('#!/bin/sh\necho "$PWD" "$PYTHONPATH" "$@"\n')
    (folder / "run").write_text(RUN)
    for script in (python, folder / "run"):
        script.chmod(0o755)
    done = subprocess.run([folder / "run", "--seconds", "2"], cwd="/", capture_output=True, text=True, check=True)
    project, options = f"{folder}/project", f"--bundle {folder}/bundle --output {folder}/results --seconds 2"
    assert done.stdout == f"{project} {project} -m benchmarks.cores {options}\n"
