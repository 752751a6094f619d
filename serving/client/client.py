"""A blocking HTTP client. It needs requests and no other package."""

import time
from collections.abc import Hashable, Sequence
from typing import Any, Self

import requests

from serving.client.core import BaseClient, Json, Request, are_typed, failure_reason
from serving.client.retry import Attempts, NoResponse, Response


class PolicyClient(BaseClient):
    """Queries a policy server over one persistent connection. It is not thread-safe.

    Observations are what the environment returns: arrays, numbers, and dicts and tuples of them. The client sends
    the state of a recurrent policy with each request and keeps the new one; call `reset` at the start of an episode.
    Temporary failures, such as a server that restarts, are retried. The arguments are those of `BaseClient`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._session = requests.Session()
        self._session.auth = self._add_headers

    def act(self, observation: Any, *, explore: bool = False, seed: int | None = None, episode: Hashable = None) -> Any:
        """Return the action for one observation, as `env.step` takes it.

        Where numpy is installed, it is an element of the action space: an array in the space's dtype, or a dict or
        tuple of them. The first such action takes a second request, for the space. An action of a Discrete space is an
        integer.

        Args:
            observation: an element of the observation space.
            explore: sample the action from the policy's distribution instead of taking the most probable one.
            seed: makes the sample reproducible. Use a new seed for each step; equal seeds draw equal noise.
            episode: identifies the episode if several are played concurrently with a recurrent policy.

        Raises:
            RequestRefused: the server responded with an error.
            ServerUnreachable: there is no policy server, or it did not respond in time.
        """
        return self._typed([self.answer(observation, explore=explore, seed=seed, episode=episode)["action"]])[0]

    def answer(
        self,
        observation: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        details: bool = False,
        episode: Hashable = None,
    ) -> dict[str, Json]:
        """Return the server's whole answer for one observation.

        With `details`, it contains the distribution of the action and, if the graph has them, its log-probability and
        the value of the observation. Raises as `act`.
        """
        return self._send(self._request(observation, episode, explore=explore, seed=seed, details=details))

    def act_batch(
        self,
        observations: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        episodes: Sequence[Hashable] | None = None,
    ) -> list[Any]:
        """Return the actions for a batch of observations, each as `act` returns it.

        Args:
            observations: a list of observations, or an array `[batch, *shape]`.
            explore: as for `act`.
            seed: as for `act`.
            episodes: identify the episode of each observation; by default its index in the batch.

        Raises as `act`.
        """
        return self._typed(
            self._send(self._batch_request(observations, episodes, explore=explore, seed=seed))["actions"]
        )

    def model(self) -> dict[str, Json]:
        """Return the served model's name, version, spaces, environment and evaluation. Raises as `act`."""
        return self._send(Request("GET", "/model"))

    def close(self) -> None:
        """Close the connection; a later request opens a new one."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _typed(self, actions: list[Json]) -> list[Any]:
        if are_typed(actions):
            return actions
        version = self.model_version
        if self._action_space[0] != version:
            self._action_space = version, self.model()["action_space"]
            self.model_version = version
        return self._elements(actions, self._action_space[1])

    def _send(self, request: Request) -> dict[str, Json]:
        attempts = Attempts(self._retry_policy)
        while (delay := attempts.delay_after(outcome := self._attempt(request, attempts))) is not None:
            time.sleep(delay)
        return self._content(request, outcome)

    def _attempt(self, request: Request, attempts: Attempts) -> Response | NoResponse:
        url = self.url + request.path
        try:
            response = self._session.request(request.method, url, data=request.body, timeout=attempts.timeouts_s)
        except requests.RequestException as error:
            return NoResponse(failure_reason(error), error)
        return Response(response.status_code, response.headers, response.content)

    def _add_headers(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Credentials in a .netrc file would replace the Authorization header of the session, but not this one.
        request.headers.update(self._headers)
        return request
