import subprocess
import sys

import psutil
import pytest

SCRIPT = """
import subprocess, sys, time
from serving import orphans

orphans.adopt()
parent = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)"
subprocess.run([sys.executable, "-c", parent], check=True)
orphans.end_children()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to a process that asks for them")
def test_a_grandchild_that_lost_its_parent_is_ended() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=30)
    assert not psutil.pid_exists(int(done.stdout))
