"""Device groups: for deleting devices together, off the caller's path, and for finding unfinished ones.

Deleting a device makes the kernel wait for RCU, some 20 ms each; all devices of a group are deleted in one such wait.
So a pod's veth is switched off (which removes its routes), loses its alias and is put into a group, in 0.1 ms; a thread
deletes the group. If the process dies in between, the devices can do nothing, and the next sweep deletes them. A device
under construction is in a group as well, so that the next process can delete it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from fast.datapath.netlink import Link, Netlink, requests
from fast.errors import DatapathError

log = structlog.get_logger()

#: Device group of what is to be deleted; 0 is the kernel's default for all others.
GONE_GROUP = 0xFA57
UNFINISHED_GROUP = 0xFA58
FINISHED_GROUP = 0


class Retirement:
    """Devices that are about to be deleted. Thread-safe.

    Args:
        deleted: Is called with the index of each device after it is gone.
    """

    def __init__(self, deleted: Callable[[int], None]) -> None:
        self._deleted = deleted
        self._lock = threading.Lock()
        self._waiting: list[int] = []
        self._sweeper: threading.Thread | None = None

    def retire(self, host: Netlink, link: Link) -> None:
        """Switch the device off; it is deleted soon.

        Raises:
            NetlinkError: The kernel refused; ENODEV where the device is gone already.
        """
        host.execute(requests.set_link(link.index, up=False, alias="", group=GONE_GROUP))
        with self._lock:
            self._waiting.append(link.index)
            if self._sweeper is None:
                # It starts in the calling thread's network namespace, where the devices are.
                sweeper = threading.Thread(target=self._sweep_waiting, name="fast-retirement")
                sweeper.start()
                self._sweeper = sweeper

    def _sweep_waiting(self) -> None:
        while True:
            with self._lock:
                indexes, self._waiting = self._waiting, []
                if not indexes:
                    self._sweeper = None
                    return
            try:
                with Netlink() as host:
                    self.sweep(host)
                for index in indexes:
                    self._deleted(index)
            except (DatapathError, OSError) as error:
                log.warning(
                    "retired devices could not be deleted; the next check tries again", error=str(error)
                )

    @staticmethod
    def sweep(host: Netlink) -> None:
        """Delete every retired device, also those of processes before this one, and wait until they are gone.

        Raises:
            NetlinkError: The kernel refused.
        """
        host.execute(requests.delete_group(GONE_GROUP))
