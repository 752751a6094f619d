"""The HAProxy of a Ray of our own: closed before what stands behind it goes."""

import contextlib
import signal

import psutil

CLOSE_WITHIN_S = 2.0
"""A connection on which nothing is asked for so long is not waited for."""


def close() -> None:
    """Have each HAProxy below this process take no new connection, and wait until it has answered what it has.

    It closes each connection after the next answer on it, ends with the last, and Serve starts no other in its place.
    The sessions of /play are answers that take minutes: they end here, with their environments.
    """
    below = psutil.Process().children(recursive=True)
    proxies = [child for child in below if child.name() == "haproxy"]
    for proxy in proxies:
        proxy.send_signal(signal.SIGUSR1)
    for child in below:
        with contextlib.suppress(psutil.Error):
            if "serving.play.environment" in child.cmdline():
                child.kill()
    psutil.wait_procs(proxies, CLOSE_WITHIN_S)
