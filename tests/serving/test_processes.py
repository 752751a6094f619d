import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serving.processes import child_environment

ORPHANING = """
import subprocess, sys
from serving import processes

processes.adopt_orphans()
parent = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)"
subprocess.run([sys.executable, "-c", parent], check=True)
processes.kill_children()
"""

DYING = """
import subprocess, sys
child = "from serving import processes; import time; processes.die_with_parent(); print('ready'); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-uc", child], stdout=subprocess.PIPE, text=True)
process.stdout.readline()
print(process.pid)
"""


def run(script: str, directory: Path) -> str:
    """Run a script in a directory in which Python does not find this project by itself."""
    command = [sys.executable, "-c", script]
    finished = subprocess.run(
        command, cwd=directory, env=child_environment(), capture_output=True, text=True, check=True, timeout=30
    )
    return finished.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_a_grandchild_whose_parent_died_is_killed(tmp_path: Path) -> None:
    assert not psutil.pid_exists(int(run(ORPHANING, tmp_path)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal when the parent dies")
def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    pid = int(run(DYING, tmp_path))
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return


def test_a_child_receives_further_variables(tmp_path: Path) -> None:
    environment = child_environment(GREETING="hello")
    script = "import os, serving; print(os.environ['GREETING'])"
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, cwd=tmp_path, env=environment, text=True) == "hello\n"
