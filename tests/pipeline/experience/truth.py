"""What whole episodes must be, computed step by step in plain Python, without the code under test."""

import math
from collections import defaultdict

from tests.pipeline.experience.recording import NOW_NS, hashed, ns


def truth(decisions, feedback, version=3, reward_wait_s=3600.0, default_reward=0.0):
    """Return the steps and the summaries of whole episodes, each by `eps_id`.

    Decisions that are the same object were recorded once, and converted more than once.
    """
    of_episode, told = defaultdict(dict), defaultdict(list)
    for each in decisions:
        if each.episode is not None:
            of_episode[each.episode][id(each)] = each
    for each in feedback:
        told[each.episode].append(each)
    steps, summaries = {}, {}
    for episode in of_episode:
        rows = _rows(list(of_episode[episode].values()))
        events = sorted(told[episode], key=lambda each: ns(each.at))
        done = _last(events, "done")
        latest = max(ns(each.at) for each in [*rows.values(), *events, *of_episode[episode].values()])
        if done is None and latest > NOW_NS - reward_wait_s * 1e9:
            continue
        name = hashed(episode).hex()
        found = _steps(name, rows, events, default_reward, version)
        if found:
            steps[name], summaries[name] = found, _summary(name, found, events)
    return steps, summaries


def _rows(decisions):
    """Return the decisions by step."""
    decisions = sorted(decisions, key=lambda each: ns(each.at))
    with_step = {each.step: each for each in decisions if each.step is not None}
    if all(each.step is not None for each in decisions):
        return with_step
    kept = [each for each in decisions if each.step is None or with_step[each.step] is each]
    return dict(enumerate(kept))


def _last(events, name):
    values = [getattr(each, name) for each in events if getattr(each, name) is not None]
    return values[-1] if values else None


def _steps(name, rows, events, default_reward, version):
    rewards = {}
    for t, row in rows.items():
        if row.previous_reward is not None and t - 1 in rows:
            rewards[t - 1] = row.previous_reward
    for event in events:
        rewards |= {step: reward for step, reward in event.rewards.items() if step in rows}
    length, final = _last(events, "length"), _last(events, "final")
    kept = sorted(t for t in rows if not length or t < length)
    found = []
    for t in kept:
        row, is_last = rows[t], t == kept[-1]
        new = rows[t + 1].inputs["observations"] if t + 1 in rows else None
        at_end = is_last and (not length or t == length - 1)
        if at_end and final is not None:
            new = final["observations"].tolist()
        terminated = at_end and _last(events, "done") == "terminated"
        found.append(
            {
                "eps_id": name,
                "t": t,
                "obs": row.inputs["observations"],
                "actions": row.outputs["action"],
                "rewards": rewards.get(t, default_reward),
                "new_obs": new,
                "terminateds": terminated,
                "truncateds": is_last and not terminated,
                "version": version,
                "mode": "explore" if row.explored else "greedy",
                "propensity": math.exp(row.logp) if row.explored else 1.0,
                "time": ns(row.at),
                "reward_reported": t in rewards,
            }
        )
    return found


def _summary(name, steps, events):
    length = _last(events, "length") or steps[-1]["t"] + 1
    total = _last(events, "total")
    return {
        "eps_id": name,
        "version": steps[0]["version"],
        "versions": 1,
        "start": min(each["time"] for each in steps),
        "end": max(each["time"] for each in steps),
        "length": length,
        "return": sum(each["rewards"] for each in steps) if total is None else total,
        "done": _last(events, "done") or "unreported",
        "rewards_reported": sum(each["reward_reported"] for each in steps),
        "complete": [each["t"] for each in steps] == list(range(length)),
        "decisions": len(steps),
        "layout": 0,
    }
