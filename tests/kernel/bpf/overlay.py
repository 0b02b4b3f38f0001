"""Runs Fast's overlay programs on packets that carry a tunnel key, as from a vxlan device. No assertions live here."""

from __future__ import annotations

import os
import struct
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

from fast.datapath.bpf import (
    FROM_OVERLAY,
    TO_OVERLAY,
    Direction,
    MapSpec,
    ObjectSpec,
    ProgramSpec,
    RunContext,
    load,
)
from fast.datapath.bpf.maps import INDEX, RAW, Map
from fast.net import Mac
from kernel.bpf.node import OTHER_NODE, VNI, LoadedNode, grown
from kernel.bpf.packets import Ip, ethernet

_PROG_ARRAY = 3
_SENDER = struct.Struct("=III")
_PROGRAMS = (FROM_OVERLAY, TO_OVERLAY)


def compiled(directory: Path) -> Path:
    """Compile tunnel_key.bpf.c."""
    out = directory / "tunnel_key.bpf.o"
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(
        [
            *("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", f"-I/usr/include/{machine}-linux-gnu"),
            *("-c", str(Path(__file__).with_name("tunnel_key.bpf.c")), "-o", str(out)),
        ],
        check=True,
    )
    return out


class Tunnel:
    """What a vxlan device hands to a node's overlay programs."""

    def __init__(self, node: LoadedNode, object_file: Path) -> None:
        spec = ObjectSpec(
            object_file,
            (ProgramSpec("with_tunnel_key", Direction.INGRESS, "for tests"),),
            (
                MapSpec("sender", 2, "", "sender", 4, _SENDER.size, 1),
                MapSpec("programs", _PROG_ARRAY, "", "", 4, 4, 4),
            ),
        )
        self.node = node
        self._object = node.machine.call(load, spec)
        self._sender = Map(os.dup(self._object.maps["sender"].fd), "sender", INDEX, RAW)
        self._programs = Map(os.dup(self._object.maps["programs"].fd), "programs", INDEX, INDEX)
        for index, name in enumerate(_PROGRAMS):
            self._programs.put(index, node.object.programs[name].fd)

    def brings(
        self,
        packet: Ip | bytes,
        *,
        sender: IPv4Address = OTHER_NODE,
        vni: int = VNI,
        program: str = FROM_OVERLAY,
        ethertype: int | None = None,
        **context,
    ):
        """Run the program on the packet with a tunnel key; give its result and the counters that grew."""
        self._sender.put(0, _SENDER.pack(_PROGRAMS.index(program), vni, int(sender)))
        frame = ethernet(
            Mac.derived("r"), Mac.derived("r-host"), ethertype or packet.ethertype, bytes(packet)
        )
        before = self.node.metrics.read()
        run = self._object.programs["with_tunnel_key"].run
        result = self.node.machine.call(
            run, frame, RunContext(ifindex=self.node.devices["tunnel"], **context)
        )
        return result, grown(before, self.node.metrics.read())

    def close(self) -> None:
        self._sender.close()
        self._programs.close()
        self._object.close()
