"""What answers at the URL to verify may be no policy server."""

import pytest

from pipeline.verification.over_http import VerifiedServer
from serving.client.errors import ServerUnreachable
from tests.serving.faulty_server import faulty_server


def test_an_answer_that_is_not_json_is_named():
    with faulty_server("garble") as server, pytest.raises(ServerUnreachable, match="200 with a body that is not JSON"):
        VerifiedServer(server.url, "cartpole-ppo", 3).query(observation=[0, 0, 1, 0])
