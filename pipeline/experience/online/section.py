"""The section about the online return in the description of a registered model, beside what a person wrote there."""

import re

BEGIN, END = "<!-- online return: written by `pipeline experience report` -->", "<!-- end of online return -->"
"""The lines around the section. MLflow's UI does not show comments."""

MAX_CHARACTERS = 5000
"""MLflow stores no longer description in most databases."""


def with_section(description: str, content: str, begin: str = BEGIN, end: str = END) -> str | None:
    """Return a description with this content as a section, in the place of an earlier one or at the end.

    Returns None if the description would become too long.

    Args:
        description: The description of a registered model or a version.
        content: The text of the section.
        begin: The line before it.
        end: The line after it.
    """
    section = f"{begin}\n{content}\n{end}"
    earlier = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", flags=re.DOTALL)
    if earlier.search(description):
        changed = earlier.sub(lambda _: section, description, count=1)
    else:
        changed = f"{description.rstrip()}\n\n{section}".lstrip()
    return changed if len(changed) <= MAX_CHARACTERS else None


def content(experiment_id: str, run_id: str) -> str:
    """Return the text of the section, with links that MLflow's UI follows."""
    run = f"#/experiments/{experiment_id}/runs/{run_id}"
    return (
        f"**Online return**, of the episodes that clients reported: [chart]({run}/artifacts/online_return.png), "
        f"[run with the metrics of each version]({run}). The versions have the tags `online.return` and "
        "`online.episodes`."
    )
