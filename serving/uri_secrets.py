"""Keeps the secrets of MLflow's URI out of an application's arguments, which Ray Serve stores and its dashboard shows.

The arguments name the store without its password. Each replica adds the password from its own environment.
"""

import os
import re

from serving.errors import USERINFO

_SECRET_PARAMETER = re.compile(r"(?<=[?&])[^=&#]*(?:pass|pwd|secret|token|api_?key)[^=&#]*=[^&#]*&?", re.IGNORECASE)


def without_secrets(uri: str) -> str:
    """Return a URI without its secrets.

    These are the password of a database, all that precedes the @ of an HTTP URL, which may be a token, and the
    parameters of a query whose names tell that they are secret, such as `password`.
    """
    is_http = uri.startswith(("http://", "https://"))

    def user_of(found: re.Match[str]) -> str:
        user = found[0].removesuffix("@").partition(":")[0]
        return "" if is_http or not user else f"{user}@"

    return _SECRET_PARAMETER.sub("", USERINFO.sub(user_of, uri)).rstrip("?&")


def with_own_secrets(uri: str, variable: str = "MLFLOW_TRACKING_URI") -> str:
    """Return a URI with the secrets of this process's environment variable, if that names the same store."""
    own = os.environ.get(variable, "")
    return own if own and without_secrets(own) == uri else uri
