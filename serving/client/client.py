"""A blocking HTTP client. It needs requests and no other package."""

import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

import requests

from serving.client.core import BaseClient, Json, Reply, Request, are_typed, failure_reason, feedback
from serving.client.episodes.batches import by_version, in_order
from serving.client.episodes.episode import Episode, pin
from serving.client.episodes.features import FEEDBACK
from serving.client.errors import RequestRefused
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
            episode: identifies the episode if several are played concurrently with a recurrent policy; or the object
                that `episode` returned.

        Raises:
            RequestRefused: the server responded with an error.
            ServerUnreachable: there is no policy server, or it did not respond in time.
        """
        reply = self._act(self._request(observation, episode, explore=explore, seed=seed))
        return self._typed([reply.content["action"]], reply.version)[0]

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
        return self._act(self._request(observation, episode, explore=explore, seed=seed, details=details)).content

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
            episodes: identify the episode of each observation; by default its index in the batch. Objects that
                `episode` returned are played in one request for each version that answers them.

        Raises as `act`. Then none of the episodes has made a step.
        """
        groups = by_version(observations, range(len(observations)) if episodes is None else episodes)
        sent = [self._batch_request(group, explore=explore, seed=seed) for group in groups]
        replies = [self._send(request) for request in sent]
        for request, reply in zip(sent, replies, strict=True):
            self._keep_states(request, reply)
        return in_order(groups, [self._typed(reply.content["actions"], reply.version) for reply in replies])

    def episode(self, id: str | None = None) -> Episode:  # noqa: A002 - the word of the protocol
        """Begin an episode: `with client.episode() as episode`.

        Its methods `act`, `reward` and `end` report each step, so that the server can record what followed from its
        actions, and one version answers the whole episode as long as the server holds it. Several can be played at
        once: each has its own state.

        Args:
            id: names the episode for the server, in 1 to 128 visible ASCII characters. Default: a random name.

        Raises:
            EpisodeInvalid: `id` is no such name.
        """
        return Episode(self, id)

    def feedback(self, *events: Mapping[str, Any]) -> bool:
        """Report what followed from actions, for example a reward that is known only after its episode.

        Args:
            events: as `POST /feedback` takes them: `{"episode": id, "rewards": [{"step": 3, "reward": 1.0}]}`.

        Returns:
            Whether the server has recorded it; false if it records no experience.

        Raises as `act`.
        """
        if not self._features.has(FEEDBACK):
            return False
        try:
            return bool(self._send(feedback(events)).content.get("accepted"))
        except RequestRefused as error:
            self._features.note_refusal(FEEDBACK, error)
            return False

    def model(self) -> dict[str, Json]:
        """Return the served model's name, version, spaces, environment and evaluation. Raises as `act`."""
        return self._send(Request("GET", "/model")).content

    def close(self) -> None:
        """Close the connection; a later request opens a new one."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _typed(self, actions: list[Json], version: int) -> list[Any]:
        if are_typed(actions):
            return actions
        if version not in self._action_spaces:
            self._keep_space(version, self._send(Request("GET", "/model", headers=pin(version))).content)
        return self._elements(actions, self._action_spaces[version])

    def _act(self, request: Request) -> Reply:
        reply = self._send(request)
        self._keep_states(request, reply)
        return reply

    def _send(self, request: Request) -> Reply:
        try:
            return self._exchange(request)
        except RequestRefused as error:
            return self._exchange(self._unnamed(request, error))

    def _exchange(self, request: Request) -> Reply:
        attempts = Attempts(self._retry_policy)
        while (delay := attempts.delay_after(outcome := self._attempt(request, attempts))) is not None:
            time.sleep(delay)
        return self._reply(request, outcome)

    def _attempt(self, request: Request, attempts: Attempts) -> Response | NoResponse:
        url = self.url + request.path
        try:
            response = self._session.request(
                request.method,
                url,
                data=request.body,
                headers=request.headers,
                timeout=attempts.timeouts_s,
                # An empty proxy prevents that requests looks for one itself, which it also does for this machine.
                proxies=dict.fromkeys(("http", "https"), self._proxy or ""),
            )
        except (requests.RequestException, ValueError) as error:  # of a host name that none can have
            return NoResponse(failure_reason(error), error)
        return Response(response.status_code, response.headers, response.content)

    def _add_headers(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Credentials in a .netrc file would replace the Authorization header of the session, but not this one.
        request.headers.update(self._headers)
        return request
