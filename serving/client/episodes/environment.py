"""A Gymnasium wrapper that reports the episodes of an environment that plays with a policy server.

It needs gymnasium.
"""

from typing import Any

import gymnasium

from serving.client.client import PolicyClient
from serving.client.episodes.episode import Episode


class RecordedEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Opens an episode with each `reset`, and reports each reward and the end of the episode.

    `act` asks the server for an action. It should be the outermost wrapper, so that it sees the observations that the
    policy sees. Steps with actions of another source are possible: their rewards count for the server's last action,
    and those before its first action for none.

        environment = RecordedEpisodes(gymnasium.make("CartPole-v1"), client)
        observation, _ = environment.reset(seed=0)
        done = False
        while not done:
            observation, _, terminated, truncated, _ = environment.step(environment.act(observation))
            done = terminated or truncated

    A `reset` in the middle of an episode ends it as truncated. The outcome of an episode that is left is not reported.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], client: PolicyClient) -> None:
        super().__init__(env)
        self._client = client
        self._observation: Any = None
        self.episode: Episode | None = None
        """The current episode; None before the first `reset`."""

    def act(self, observation: Any, *, explore: bool = False, seed: int | None = None) -> Any:
        """Return the server's action for the next step. Raises as `PolicyClient.act`, and ResetNeeded."""
        if self.episode is None:
            raise gymnasium.error.ResetNeeded("call reset() before act()")
        return self.episode.act(observation, explore=explore, seed=seed)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin another episode."""
        if self.episode is not None and self.episode.done is None:
            self.episode.end("truncated", self._observation)
        self._observation, info = self.env.reset(**options)
        self.episode = self._client.episode()
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and report its reward; at the end of the episode, also its outcome."""
        self._observation, reward, terminated, truncated, info = self.env.step(action)
        episode = self.episode
        if episode is not None and episode.step and episode.done is None:
            episode.reward(float(reward))
            if terminated or truncated:
                episode.end("terminated" if terminated else "truncated", self._observation)
        return self._observation, reward, terminated, truncated, info
