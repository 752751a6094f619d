import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serving import processes
from serving.processes import available_cpus, child_environment

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


@pytest.mark.skipif(not Path("/proc/self/sched").exists(), reason="this kernel does not show the time slices")
def test_a_thread_gets_short_time_slices_and_keeps_its_niceness(tmp_path: Path) -> None:
    script = (
        "import os; from serving.processes import shorten_slice; niceness = os.nice(3); shorten_slice();"
        "shown = open('/proc/self/sched').read().split();"
        "print(shown[shown.index('se.slice') + 2], os.nice(0) - niceness)"
    )
    assert run(script, tmp_path) == "100000 0"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has affinity masks")
def test_the_affinity_mask_limits_the_available_cpus(tmp_path: Path) -> None:
    script = (
        "import os; from serving.processes import available_cpus; first = min(os.sched_getaffinity(0));"
        "os.sched_setaffinity(0, {first}); print(available_cpus())"
    )
    assert run(script, tmp_path) == "1"


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {}, 64),
        ("0::/jobs/mine", {"jobs/mine/cpu.max": "max 100000", "jobs/cpu.max": "300000 100000"}, 3),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4),
        ("4:memory:/a\n3:cpu:/a\n0::/", {"cpu/a/cpu.cfs_quota_us": "500000", "cpu/a/cpu.cfs_period_us": "100000"}, 5),
        ("3:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_the_quotas_of_control_groups_limit_the_available_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], cpus: int
) -> None:
    contents = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in {"proc/self/cgroup": groups, **contents}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    quotas = list(processes._cpu_quotas(tmp_path))
    monkeypatch.setattr(processes, "_cpu_quotas", lambda: quotas)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert available_cpus() == cpus


def test_a_child_receives_further_variables(tmp_path: Path) -> None:
    environment = child_environment(GREETING="hello")
    script = "import os, serving; print(os.environ['GREETING'])"
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, cwd=tmp_path, env=environment, text=True) == "hello\n"
