"""Deletes raw files that are older than a number of days."""

import re
from datetime import UTC, datetime, timedelta

from pipeline.experience.raw import DECISIONS, FEEDBACK, MANIFESTS
from pipeline.experience.whole_episodes import model_directory
from serving.experience.store import Store

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def delete_older(store: Store, model: str, keep_days: int, now_ns: int) -> int:
    """Delete the raw files of days more than `keep_days` days ago; return how many. Manifests go first."""
    first = (datetime.fromtimestamp(now_ns / 1e9, UTC) - timedelta(days=keep_days)).date().isoformat()
    deleted = 0
    for kind in (MANIFESTS, DECISIONS, FEEDBACK):
        for path in store.files(f"{kind}/{model_directory(model)}"):
            day = path.split("/")[-2]
            if _DAY.fullmatch(day) and day < first:
                store.delete(path)
                deleted += 1
    return deleted
