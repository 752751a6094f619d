"""Gymnasium's tabular environments, from their transition tables: exact values, and recorded episodes of any policy."""

import gymnasium
import numpy as np
from gymnasium import spaces

from pipeline.ope.statistics.distributions import ActionDistribution
from pipeline.ope.statistics.logs import NOTHING, Logs
from pipeline.ope.statistics.weights import TargetActions

_LEAST = 1e-12  # stands for the probability 0 in logits


class Tabular:
    """An environment that ends after `horizon` steps, as Gymnasium's TimeLimit does, or in a terminal state."""

    def __init__(self, env_id, horizon, **kwargs):
        env = gymnasium.make(env_id, **kwargs).unwrapped
        self.states, self.actions = int(env.observation_space.n), int(env.action_space.n)
        most = max(len(each) for row in env.P.values() for each in row.values())
        shape = self.states, self.actions, most
        self._probability, self._reward = np.zeros(shape), np.zeros(shape)
        self._next, self._done = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        for state, row in env.P.items():
            for action, outcomes in row.items():
                for index, (probability, after, reward, done) in enumerate(outcomes):
                    place = state, action, index
                    self._probability[place], self._next[place] = probability, after
                    self._reward[place], self._done[place] = reward, done
        self.start = np.asarray(env.initial_state_distrib, np.float64)
        self.horizon = horizon
        self.distribution = ActionDistribution(spaces.Discrete(self.actions))

    def q(self, policy=None, gamma=1.0):
        """Return the values [horizon, states, actions] of a policy [states, actions], by default the best one."""
        value, found = np.zeros(self.states), []
        for _ in range(self.horizon):
            after = np.where(self._done, 0.0, value[self._next])
            q = (self._probability * (self._reward + gamma * after)).sum(axis=2)
            found.append(q)
            value = q.max(axis=1) if policy is None else (policy * q).sum(axis=1)
        return np.stack(found[::-1])

    def value(self, policy, gamma=1.0):
        """Return the exact mean return of a policy [states, actions]."""
        return float(self.start @ (policy * self.q(policy, gamma)[0]).sum(axis=1))

    def soft(self, temperature, noise=0.0, gamma=0.99):
        """Return a policy [states, actions] that prefers good actions, and takes any of them with `noise`."""
        q = self.q(gamma=gamma)[0]
        best = np.exp((q - q.max(axis=1, keepdims=True)) / temperature)
        best /= best.sum(axis=1, keepdims=True)
        return (1 - noise) * best + noise / self.actions

    def greedy(self, policy):
        """Return the policy that takes the most probable action."""
        return np.eye(self.actions)[policy.argmax(axis=1)]

    def record(self, policy, episodes, generator, greedy_share=0.0, version=3):
        """Return recorded episodes of a policy, some of them greedy."""
        explored = generator.random(episodes) >= greedy_share
        state = generator.choice(self.states, episodes, p=self.start)
        active = np.arange(episodes)
        columns = {name: [] for name in ("episode", "state", "action", "reward", "after", "done")}
        choice = policy.cumsum(axis=1)
        outcome = self._probability.cumsum(axis=2)
        for _ in range(self.horizon):
            here = state[active]
            drawn = (generator.random((len(active), 1)) > choice[here]).sum(axis=1).clip(max=self.actions - 1)
            action = np.where(explored[active], drawn, policy[here].argmax(axis=1))
            last = self._probability.shape[2] - 1
            which = (generator.random((len(active), 1)) > outcome[here, action]).sum(axis=1).clip(max=last)
            place = here, action, which
            after, done = self._next[place], self._done[place]
            values = active, here, action, self._reward[place], after, done
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
            state[active] = after
            active = active[~done]
            if not len(active):
                break
        return self._logs({name: np.concatenate(each) for name, each in columns.items()}, policy, explored, version)

    def target(self, policy, logs):
        """Return what a policy [states, actions] does in the states of recorded episodes."""
        with np.errstate(divide="ignore"):
            logs_of = np.log(policy)
        rows, states = logs.states[0][: logs.steps], logs.states[0]
        every = np.arange(self.actions, dtype=np.float64)[:, np.newaxis]
        actions = np.broadcast_to(every, (len(states), self.actions, 1))
        return TargetActions(actions, policy[states], logs_of[states], logs_of[rows, logs.actions[:, 0].astype(int)])

    def _logs(self, columns, policy, explored, version):
        order = np.argsort(columns["episode"], kind="stable")
        columns = {name: each[order] for name, each in columns.items()}
        lengths = np.bincount(columns["episode"], minlength=len(explored))
        last = np.cumsum(lengths) - 1
        following = np.arange(1, len(order) + 1)
        truncated = last[~columns["done"][last]]
        following[last] = NOTHING
        following[truncated] = len(order) + np.arange(len(truncated))
        return Logs(
            states=(np.concatenate([columns["state"], columns["after"][truncated]]),),
            actions=columns["action"].astype(np.float64)[:, np.newaxis],
            rewards=columns["reward"].astype(np.float64),
            inputs=np.log(np.maximum(policy, _LEAST))[columns["state"]],
            next_state=following,
            lengths=lengths,
            explored=explored,
            versions=np.full(len(explored), version),
        )
