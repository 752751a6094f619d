"""A client for a policy server. It needs requests and nothing else: no ray, no torch, no mlflow."""

import time
from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import Any, Self

import requests

from serving.client.core import Conversation, Json, Question, options_of, reason_of
from serving.client.retry import Call, Lost, Reply


class PolicyClient(Conversation):
    """Asks a policy server for actions over one kept-alive connection. Not to be shared between threads.

    Observations are what the environment returns: arrays, numbers, and dicts and tuples of them. The states of a
    recurrent policy go with each request and come with each answer; call `reset` where an episode begins. What may
    pass, such as a server that restarts, is tried again; to repeat a request is safe, for the server keeps nothing of
    it. The arguments are those of `Conversation`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._session = requests.Session()
        self._session.auth = self._authorize

    def act(
        self, observation: Any, *, explore: bool = False, seed: int | None = None, episode: Hashable = None
    ) -> Json:
        """Return the action for one observation: what `env.step` takes.

        Args:
            observation: of the observation space.
            explore: sample it from the policy's distribution, instead of taking the most probable one.
            seed: makes the sample repeatable; the same for each step would draw the same noise for each.
            episode: names the episode, where several are played with a recurrent policy.

        Raises:
            RequestRefused: the server says why.
            ServerUnreachable: no server, or no answer in time.
        """
        return self.answer(observation, explore=explore, seed=seed, episode=episode)["action"]

    def answer(
        self,
        observation: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        details: bool = False,
        episode: Hashable = None,
    ) -> dict[str, Json]:
        """Return the server's whole answer for one observation; `details` adds what is known of the action.

        Raises as `act`.
        """
        options = options_of(explore=explore, seed=seed, details=details)
        answer: dict[str, Json] = self._ask(self._question(observation, episode, options))
        self._remember(answer, episode)
        return answer

    def act_batch(
        self,
        observations: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        episodes: Sequence[Hashable] | None = None,
    ) -> list[Json]:
        """Return the actions for a batch of observations.

        Args:
            observations: a list of them, or an array `[batch, *shape]`.
            explore: as for `act`.
            seed: as for `act`.
            episodes: what names the episode of each; by default its place in the batch.

        Raises as `act`.
        """
        names = range(len(observations)) if episodes is None else episodes
        answer = self._ask(self._batch_question(observations, names, options_of(explore=explore, seed=seed)))
        self._remember_batch(answer, names)
        actions: list[Json] = answer["actions"]
        return actions

    def model(self) -> dict[str, Json]:
        """Return what the server serves: name, version, spaces, environment, evaluation. Raises as `act`."""
        description: dict[str, Json] = self._ask(Question("GET", "/model"))
        return description

    def close(self) -> None:
        """Close the connection; another request would open one again."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, question: Question) -> Any:
        call = Call(self._patience)
        while (wait := call.wait_after(outcome := self._attempt(question, call))) is not None:
            time.sleep(wait)
        return self._understand(outcome)

    def _attempt(self, question: Question, call: Call) -> Reply | Lost:
        url = self.url + question.path
        try:
            answer = self._session.request(question.method, url, data=question.body, timeout=call.timeouts_s)
        except requests.RequestException as error:
            return Lost(reason_of(error), error)
        return Reply(answer.status_code, answer.headers, answer.content)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Headers of the session would give way to what a .netrc says.
        request.headers.update(self._headers)
        return request
