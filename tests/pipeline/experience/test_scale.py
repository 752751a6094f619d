"""Ten million decisions in constant memory, through the commands."""

import json
import subprocess
import sys

import pytest

from benchmarks.experience import LENGTH, measured, write_raw
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.store import open_store

LARGEST_MIB = 600
"""Python, pyarrow and the buckets of one join; it does not depend on the number of decisions."""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_million_decisions_are_compacted_in_constant_memory(tmp_path):
    store = open_store(str(tmp_path))
    write_raw(store, 10_000_000)
    assert measured("compact", store.uri).peak_mib < LARGEST_MIB
    assert measured("stats", store.uri).peak_mib < LARGEST_MIB
    command = (sys.executable, "-m", "pipeline", "experience", "stats", store.uri, "--json")
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    (version,) = found["versions"]
    assert (version["decisions"], version["terminated"]) == (10_000_000, 10_000_000 // LENGTH)
    assert version["rewards_reported"] == 1.0
    steps = 0
    for table in WholeEpisodes.open(store, "bench").tables(columns=["rewards"]):
        steps += len(table)
        assert set(table["rewards"].unique().to_pylist()) == {1.0}
    assert steps == 10_000_000
