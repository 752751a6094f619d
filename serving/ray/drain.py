"""Graceful shutdown of the HAProxy of a local Ray, before its replicas stop."""

import contextlib
import signal

import psutil

CLOSE_WITHIN_S = 2.0
"""How long open connections may stay idle before they are cut."""


def drain_proxies() -> None:
    """Stop accepting connections in each HAProxy of this process, and wait until open requests are answered.

    On SIGUSR1 HAProxy closes each connection after its next response and exits after the last one; Serve does not
    start another one. Sessions of /play last for minutes, so their environment processes are killed.
    """
    descendants = psutil.Process().children(recursive=True)
    proxies = []
    for process in descendants:
        with contextlib.suppress(psutil.Error):  # it has just ended
            if process.name() == "haproxy":
                process.send_signal(signal.SIGUSR1)
                proxies.append(process)
            elif "serving.play.environment" in process.cmdline():
                process.kill()
    psutil.wait_procs(proxies, CLOSE_WITHIN_S)
