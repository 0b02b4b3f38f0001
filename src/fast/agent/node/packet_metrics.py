"""Exports the counters of the eBPF programs and the nftables table. They are read at each scrape, never kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from fast.datapath.bpf.layout import Metric
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.errors import DatapathError

_LABELS = ("reason", "direction", "verdict")

Counters = Mapping[tuple[Reason, PacketDirection], Metric]
#: What no program can see, as nftables translates or routes it; by the names of reason and direction.
Refused = Mapping[tuple[str, str], Metric]


class PacketCollector(Collector):
    """``fast_packets_total`` and ``fast_packet_bytes_total``, by reason, direction and verdict (``forward``, ``drop``).

    Args:
        read: Returns the programs' counters; raises DatapathError while the datapath is not up.
        refused: Returns the nftables table's counters, likewise.
    """

    def __init__(self, read: Callable[[], Counters], refused: Callable[[], Refused]) -> None:
        self._read = read
        self._refused = refused

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Read the counters."""
        packets = CounterMetricFamily(
            "fast_packets", "Packets by what the eBPF programs and the firewall did and why.", labels=_LABELS
        )
        octets = CounterMetricFamily("fast_packet_bytes", "Their bytes.", labels=_LABELS)
        for labels, metric in self._counters():
            packets.add_metric(labels, metric.packets)
            octets.add_metric(labels, metric.byte_count)
        return packets, octets

    def _counters(self) -> Iterator[tuple[Sequence[str], Metric]]:
        """Yield every counter with its labels."""
        with contextlib.suppress(DatapathError):
            for (reason, direction), metric in sorted(self._read().items()):
                verdict = "drop" if reason.is_drop else "forward"
                yield (reason.name.lower(), direction.name.lower(), verdict), metric
        with contextlib.suppress(DatapathError):
            for (reason_name, direction_name), metric in sorted(self._refused().items()):
                yield (reason_name, direction_name, "drop"), metric
