"""A netlink socket, in this namespace or another: batches with one acknowledgement a request, and dumps."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from fast.datapath.netlink import records, requests, wire
from fast.datapath.netlink.records import Address, Link, Neighbour, Route, Rule
from fast.datapath.netlink.requests import Request
from fast.datapath.netns import run_in
from fast.errors import NetlinkError

_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_ERRNO = struct.Struct("=i")
_RECEIVE_BYTES = 1 << 16  # the kernel's largest dump datagram is 32 KiB
#: Acknowledgements queue in the socket while the kernel works through a batch; its default buffer holds some 250.
_BATCH = 100
_DUMP_ATTEMPTS = 5


def _open_socket() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:  # out of descriptors, as a rule
        raise NetlinkError(f"open a netlink socket: {error.strerror}", error.errno or 0) from error
    for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK):
        sock.setsockopt(_SOL_NETLINK, option, 1)
    return sock


class Netlink:
    """One rtnetlink socket. Not to be shared between threads: opening one costs 20 microseconds.

    Args:
        netns: Descriptor of the network namespace to work in; None: the calling thread's own. A socket stays in the
            namespace it was opened in, so a short-lived thread enters it, opens the socket and ends.
    """

    __slots__ = ("_sequence", "_socket")

    def __init__(self, netns: int | None = None) -> None:
        self._socket = _open_socket() if netns is None else run_in(netns, _open_socket)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, *batch: Request) -> list[bytes]:
        """Carry out the requests in order, in as few system calls as can be.

        The kernel goes on after a request that fails; the first failure is raised once all were tried, so whoever
        needs all or nothing undoes what was done.

        Returns:
            The bodies of the records that requests were answered with, in order.

        Raises:
            NetlinkError: The first request that failed with an errno it does not tolerate, in words, with the
                kernel's extended acknowledgement.
        """
        answers: list[bytes] = []
        failure: NetlinkError | None = None
        for start in range(0, len(batch), _BATCH):
            part_answers, part_failure = self._execute(batch[start : start + _BATCH])
            answers += part_answers
            failure = failure or part_failure
        if failure is not None:
            raise failure
        return answers

    def _execute(self, batch: Sequence[Request]) -> tuple[list[bytes], NetlinkError | None]:
        first = self._sequence + 1
        self._send(batch, wire.NLM_F_ACK)
        answers: list[bytes] = []
        failure: NetlinkError | None = None
        left = len(batch)
        while left:
            for kind, flags, sequence, body in self._receive():
                if sequence < first:
                    continue  # rest of an interrupted dump
                if kind != wire.NLMSG_ERROR:
                    answers.append(body)
                    continue
                left -= 1
                failure = failure or _failure(batch[sequence - first], flags, body)
        return answers, failure

    def _send(self, batch: Sequence[Request], extra_flags: int) -> None:
        parts = []
        for request in batch:
            self._sequence += 1
            header = wire.HEADER.pack(
                wire.HEADER.size + len(request.body),
                request.kind,
                wire.NLM_F_REQUEST | extra_flags | request.flags,
                self._sequence,
                0,
            )
            parts.append(wire.padded(header + request.body))
        try:
            self._socket.send(b"".join(parts))
        except OSError as error:
            raise NetlinkError(f"{batch[0].what}: {error.strerror}", error.errno or 0) from error

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            raw = self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise NetlinkError(f"receive from netlink: {error.strerror}", error.errno or 0) from error
        return wire.parse_messages(raw)

    def dump(self, request: Request) -> list[bytes]:
        """List what a dump request asks for; started over when the kernel says the list changed meanwhile.

        Raises:
            NetlinkError: The kernel refused, or the list never held still.
        """
        for _attempt in range(_DUMP_ATTEMPTS):
            bodies, consistent = self._dump(request)
            if consistent:
                return bodies
        raise NetlinkError(
            f"{request.what}: the list changed during each of {_DUMP_ATTEMPTS} attempts", errno.EAGAIN
        )

    def _dump(self, request: Request) -> tuple[list[bytes], bool]:
        self._send([request], 0)
        bodies: list[bytes] = []
        consistent = True
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                consistent &= not flags & wire.NLM_F_DUMP_INTR
                if kind in (wire.NLMSG_DONE, wire.NLMSG_ERROR):
                    echoed_bytes = wire.HEADER.size if kind == wire.NLMSG_ERROR else 0
                    if failure := _failure(request, flags, body, echoed_bytes):
                        raise failure
                    return bodies, consistent
                bodies.append(body)

    def find_link(self, name: str) -> Link | None:
        """Find the device of that name here."""
        return self._find_link(requests.get_link(name))

    def find_link_at(self, index: int) -> Link | None:
        """Find the device of that index here."""
        return self._find_link(requests.get_link_at(index))

    def _find_link(self, request: Request) -> Link | None:
        try:
            return records.parse_link(self.execute(request)[0])
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def links(self, kind: str = "") -> list[Link]:
        """List the devices here, or those of one kind."""
        found = [records.parse_link(body) for body in self.dump(requests.dump_links(kind))]
        return [link for link in found if not kind or link.kind == kind]

    def addresses(self, index: int = 0) -> list[Address]:
        """List the addresses here, or those of one device."""
        return [records.parse_address_record(body) for body in self.dump(requests.dump_addresses(index))]

    def routes(self, index: int = 0, table: int = wire.RT_TABLE_MAIN) -> list[Route]:
        """List the routes for unicast of the table, both families, or those through one device."""
        bodies: list[bytes] = []
        for version in (4, 6):
            try:
                bodies += self.dump(requests.dump_routes(version, index, table))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:  # there is no such table: nobody put a route into it
                    raise
        found = filter(None, map(records.parse_route, bodies))
        return [route for route in found if route.table == table and index in (0, route.index)]

    def route_mtus(self) -> list[int]:
        """List the MTUs that IPv4 routes of any table, none of Fast's, have of their own."""
        bodies = self.dump(requests.dump_routes(4, table=wire.RT_TABLE_UNSPEC))
        return [mtu for mtu in map(records.parse_route_mtu, bodies) if mtu is not None]

    def rules(self) -> list[Rule]:
        """List the routing rules that select by source, both families."""
        bodies = self.dump(requests.dump_rules(4))
        try:
            bodies += self.dump(requests.dump_rules(6))
        except NetlinkError as error:
            if error.errno != errno.EAFNOSUPPORT:  # a kernel started with ipv6.disable=1
                raise
        return [rule for rule in map(records.parse_rule, bodies) if rule is not None]

    def neighbours(self, index: int = 0) -> list[Neighbour]:
        """List the neighbour entries, both families, or those of one device."""
        bodies = [body for version in (4, 6) for body in self.dump(requests.dump_neighbours(version))]
        found = filter(None, map(records.parse_neighbour, bodies))
        return [neighbour for neighbour in found if index in (0, neighbour.index)]


def _failure(
    request: Request, flags: int, body: bytes, echoed_bytes: int = wire.HEADER.size
) -> NetlinkError | None:
    """Turn an NLMSG_ERROR or NLMSG_DONE body into the error it stands for, if any.

    Behind the errno comes of the request ``echoed_bytes``: with CAP_ACK an NLMSG_ERROR has its header, a DONE nothing.
    """
    code = -_ERRNO.unpack_from(body)[0] if len(body) >= _ERRNO.size else 0
    if code <= 0 or code in request.tolerated:
        return None
    said = ""
    if flags & wire.NLM_F_ACK_TLVS:
        attributes = wire.parse_attributes(body, _ERRNO.size + echoed_bytes)
        said = wire.parse_text(attributes.get(wire.NLMSGERR_ATTR_MSG))
    detail = f" ({said})" if said else ""
    return NetlinkError(f"cannot {request.what}: {os.strerror(code)}{detail}", code)
