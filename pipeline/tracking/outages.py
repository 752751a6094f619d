"""Tells failures of the tracking server, which pass, from refusals, and repeats calls through failures."""

import re
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

import requests
from mlflow.exceptions import MlflowException

from pipeline import signals
from pipeline.tracking.errors import TrackingFailed, TrackingRefused
from serving.errors import ServingError
from serving.registry.errors import DatabaseUnreachable, TrackingServerUnreachable
from serving.registry.mlflow_api import causes, first_line
from serving.registry.tracking import check_tracking_server, is_remote, tracking_uri

Notify = Callable[[str], None]
"""Shows one line to the user."""

Result = TypeVar("Result")

#: Seconds between tries while the server fails.
RETRY_INTERVAL_S = 1.0

#: Seconds after which a command that has nothing else to do gives up on a server that is reachable and fails.
LONGEST_FAILURE_S = 1800.0

#: Statuses of requests that may succeed later, beside those from 500 on: timeout, too early, too many requests.
_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}

#: Statuses from 500 on that do not become a success by themselves.
_NEVER = {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, HTTPStatus.INSUFFICIENT_STORAGE}

#: How the texts of MLflow, requests and urllib3 name a status.
_STATUS_IN_TEXT = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error|\b(\d{3}) (?:Client|Server) Error")

#: The libraries through which MLflow's client reaches object stores itself.
_STORE_CLIENTS = {"azure", "boto3", "botocore", "google", "s3transfer"}

#: Exceptions of the clients of object stores whose names say that no answer came.
_NO_ANSWER = {"ConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ServiceRequestError", "TransportError"}


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status with which MLflow's server or an artifact store answered; None if no answer came."""
    for each in causes(error):
        if found := _STATUS_IN_TEXT.search(str(each)):
            return int(next(filter(None, found.groups())))
        response = getattr(each, "response", None)
        if isinstance(response, requests.Response):
            return response.status_code
        if isinstance(response, dict):  # botocore
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
        if isinstance(each, MlflowException) and not _is_unanswered(error):
            return int(each.get_http_status_code())  # type: ignore[no-untyped-call]
        if isinstance(code := getattr(each, "status_code", None), int):
            return code
    return None


def is_failure(error: BaseException) -> bool:
    """Return whether the server failed, or did not answer, so that a later try may succeed."""
    status = status_of(error)
    if status is None:
        return _is_unanswered(error)
    return status in _LATER or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _NEVER)


def is_refusal(error: BaseException) -> bool:
    """Return whether the server, a store, or a proxy before them refused what was sent."""
    status = status_of(error)
    return status is not None and status >= HTTPStatus.BAD_REQUEST and not is_failure(error)


def reason_of(error: BaseException) -> str:
    """Return why a call failed, in a few words: the status and what the server said, without URLs."""
    status = status_of(error)
    if status is None:
        return f"{type(error).__name__}: {first_line(error)}" if isinstance(error, OSError) else "no answer"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return (
            "status 413: the server or a proxy before it limits the size of uploads, such as nginx by "
            "client_max_body_size. Raise that limit; registering the policy is an upload, too"
        )
    said = first_line(error) if isinstance(error, MlflowException) and "://" not in str(error) else ""
    return f"status {status}" + (f": {said}" if said and not said.startswith("status") else "")


class Outage:
    """The state of the tracking server as failed and successful calls show it, and the notices about its changes.

    Attributes:
        is_unreachable: Whether the server did not answer the last probe.

    Args:
        notify: Receives a line when the server begins to fail, and when it works again.
    """

    def __init__(self, notify: Notify) -> None:
        self.is_unreachable = False
        self._notify = notify
        self._shown = ""
        self._failing_since: float | None = None

    @property
    def failing_s(self) -> float:
        """Seconds for which the server has been reachable and has failed."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def failed(self, error: Exception) -> None:
        """Record that a call failed. Raises the error if it is none of the server's failures."""
        if not is_failure(error):
            raise error
        status = status_of(error)
        self.is_unreachable = not is_reachable()
        # The state may alternate between different errors; the first one is shown.
        if not self._shown:
            name, is_silent = _failing(error), status is None or (self.is_unreachable and not _has_server())
            state = "is unreachable" if is_silent else f"answers with errors ({reason_of(error)})"
            self._notify(f"{name} {state}; metrics and files wait in memory.")
            self._shown = f"{name} {'is reachable again' if is_silent else 'works again'}"
        if self.is_unreachable:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = time.monotonic()

    def is_over(self) -> bool:
        """Probe a server that was unreachable; return whether it is reachable."""
        self.is_unreachable = self.is_unreachable and not is_reachable()
        return not self.is_unreachable

    def ended(self) -> None:
        """Record that all calls succeeded."""
        self.is_unreachable, self._failing_since = False, None
        if self._shown:
            self._notify(f"{self._shown}.")
            self._shown = ""

    def begin_to_count(self) -> None:
        """Count the seconds of `failing_s` from now on."""
        self._failing_since = None


def is_reachable() -> bool:
    """Return whether the tracking server answers, if only to refuse; the next call then shows why."""
    try:
        check_tracking_server()
    except (TrackingServerUnreachable, DatabaseUnreachable):
        return False
    except ServingError:
        pass
    return True


def retry_through_outages(
    send: Callable[[], Result], notify: Notify, what: str, *, longest_s: float = LONGEST_FAILURE_S
) -> Result:
    """Call a function that sends something to MLflow until it succeeds, and return its result.

    Args:
        send: The function.
        notify: Shows when the tracking server begins to fail, and when it works again.
        what: What is sent, for the errors.
        longest_s: Seconds for which a reachable server may fail. An unreachable one is waited for without limit.

    Raises:
        TrackingRefused: If the server or a store refuses it.
        TrackingFailed: If the server is reachable and fails for longer.
        Interrupted: After a signal.
        Exception: What else `send` raises.
    """
    outage = Outage(notify)
    while True:
        try:
            result = send()
        except Exception as error:
            if is_refusal(error):
                raise TrackingRefused(what, reason_of(error)) from error
            outage.failed(error)
            if outage.failing_s > longest_s:
                raise TrackingFailed(what, longest_s, reason_of(error)) from error
        else:
            outage.ended()
            return result
        _pause()
        while not outage.is_over():
            _pause()


def _failing(error: BaseException) -> str:
    """Return the name of what failed, for the user."""
    if any(type(each).__module__.partition(".")[0] in _STORE_CLIENTS for each in causes(error)):
        return "The artifact store"
    return "The tracking server" if _has_server() else "MLflow's database"


def _has_server() -> bool:
    return is_remote(tracking_uri())


def _pause() -> None:
    if threading.current_thread() is threading.main_thread():
        signals.check()
    time.sleep(RETRY_INTERVAL_S)


def _is_unanswered(error: BaseException) -> bool:
    for each in causes(error):
        if isinstance(each, ConnectionError | TimeoutError | requests.ConnectionError | requests.Timeout):
            return True
        if _NO_ANSWER & {base.__name__ for base in type(each).__mro__}:
            return True
    return False
