"""A Ray of our own, started and stopped beside what the program does meanwhile."""

import logging
import threading
from typing import Self

from pipeline.interruption import regain_sigterm


class RaySession:
    """Ray, started by a thread while the program imports what it needs; a context manager.

    Starting Ray is mostly waiting for its processes, so both go on at once. The thread lives as long as Ray does: its
    end would be the end of the driver. Ray leaves Python's signal handlers alone, since it is not the main thread.

    Args:
        num_cpus: How many remote processes Ray may run at once; None for one per core.
    """

    def __init__(self, num_cpus: int | None) -> None:
        self._num_cpus = num_cpus
        self._started = threading.Event()
        self._leave = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.begin_to_stop()
        self._thread.join()

    def await_ready(self) -> None:
        """Wait, in the main thread, until Ray runs.

        Raises:
            Whatever starting it raised.
        """
        self._started.wait()
        regain_sigterm()
        if self._error is not None:
            raise self._error

    def begin_to_stop(self) -> None:
        """Stop Ray without waiting for it; nothing may use it from here on."""
        self._leave.set()

    def _live(self) -> None:
        try:
            import ray

            # RLlib warns at each start that it is itself; what matters to a person raises.
            logging.getLogger("ray.rllib").setLevel(logging.ERROR)
            ray.init(
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                num_cpus=self._num_cpus,
            )
        except BaseException as error:  # noqa: BLE001  # it belongs to the thread that waits
            self._error = error
        self._started.set()
        self._leave.wait()
        if self._error is None:
            ray.shutdown()
