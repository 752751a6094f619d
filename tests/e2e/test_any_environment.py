"""The README's environment of one's own: trained, verified, evaluated, promoted and asked, as the README has it."""

import re

import pytest

from tests.workshop import PROJECT

pytestmark = pytest.mark.e2e

SECTION = (PROJECT / "README.md").read_text().split("### Train on any environment", 1)[1]


def test_the_readmes_environment_goes_all_the_way(workshop):
    (workshop.directory / "reach.py").write_text(re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)[0])
    for command in re.findall(r"```bash\n(.*?)```", SECTION, flags=re.DOTALL)[0].splitlines():
        done = workshop.run("sh", "-c", command)
        assert done.returncode == 0, done.stderr
    done = workshop.python("pipeline", "promote", "1", "--name", "reach", "--episodes", "5")
    assert done.returncode == 0, done.stderr
