"""The connection to a submit driver: the kept one of this configuration, else one started for this command."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tony.errors import Unreachable
from tony.yarn.driver import START_TIMEOUT_S, find_java, open_driver
from tony.yarn.keptdriver import KeptDriver, running_driver

if TYPE_CHECKING:
    from tony.yarn.skeinlink import Driver

_CONNECT_TIMEOUT_S = 20.0


class Submitter:
    """Opens its driver once, when first asked or beside other work after `warm_up`. Thread-safe.

    `user` is who to be on a cluster without Kerberos, None for whoever runs this.
    """

    def __init__(self, conf_dir: Path, bin_dir: Path | None, user: str | None = None) -> None:
        self._conf_dir = conf_dir
        self._bin_dir = bin_dir
        self._user = user
        self._lock = threading.Lock()
        self._opening: Future[Driver] | None = None
        self._opened = ExitStack()
        self._closing = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        """The JVM that was started here, if one was."""

    def warm_up(self) -> None:
        """Begin to open the driver in the background; returns at once. Other errors come from `driver`.

        Raises Unreachable where there is no Java to start one with: that can be told before anything is uploaded.
        """
        with self._lock:
            if self._opening is None:
                if self._kept() is None:
                    find_java()
                self._closing.clear()
                pool = ThreadPoolExecutor(1, "tony-driver")
                self._opening = pool.submit(self._open)
                pool.shutdown(wait=False)

    def driver(self) -> Driver:
        """The driver, once it is there. Blocks for up to 3 s as a rule. Raises Unreachable."""
        self.warm_up()
        opening = self._opening
        assert opening is not None
        try:
            return opening.result(START_TIMEOUT_S + _CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            if isinstance(error, Unreachable):
                raise
            raise Unreachable(
                "the submit driver did not come up in time.",
                "Is Java there? Its log lies in the drivers folder of tony's cache; with -v more is said",
            ) from error

    def close(self) -> None:
        """End the driver if it was started here; a later call of `driver` opens another. May be called twice."""
        with self._lock:
            opening, self._opening = self._opening, None
        if opening is not None and not opening.cancel():
            # A start that is under way gives up soon; what it has opened must be closed here.
            self._closing.set()
            opening.exception(START_TIMEOUT_S + _CONNECT_TIMEOUT_S)
        self._opened.close()

    def _kept(self) -> KeptDriver | None:
        return running_driver(self._conf_dir) if self._user is None else None

    def _open(self) -> Driver:
        from tony.yarn.skeinlink import Driver

        kept = self._kept()
        if kept is not None:
            try:
                driver = Driver(kept.address, kept.credentials())
                self._opened.callback(driver.close)
                return driver
            except Unreachable:
                # It is alive but does not answer, or its files are gone: one of our own does.
                pass
        process = open_driver(self._conf_dir, self._bin_dir, self._user, self._closing.is_set)
        self.process = process.process
        self._opened.callback(process.close)
        driver = Driver(process.address, process.credentials)
        self._opened.callback(driver.close)
        return driver
