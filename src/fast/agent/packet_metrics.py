"""The eBPF programs' counters in the agent's metrics: read from their map at each scrape, never kept here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from fast.datapath.bpf.layout import Metric
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.errors import DatapathError

_LABELS = ("reason", "direction", "verdict")

Counters = Mapping[tuple[Reason, PacketDirection], Metric]


class PacketCollector(Collector):
    """``fast_packets_total`` and ``fast_packet_bytes_total``, by reason, direction and verdict (``forward``, ``drop``).

    Args:
        read: Gives the counters; DatapathError while the datapath is not up, when there is nothing to tell.
    """

    def __init__(self, read: Callable[[], Counters]) -> None:
        self._read = read

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Read the counters."""
        packets = CounterMetricFamily(
            "fast_packets", "Packets by what the eBPF programs did and why.", labels=_LABELS
        )
        octets = CounterMetricFamily("fast_packet_bytes", "Their bytes.", labels=_LABELS)
        try:
            found = self._read()
        except DatapathError:
            found = {}
        for (reason, direction), metric in sorted(found.items()):
            verdict = "drop" if reason.is_drop else "forward"
            labels = (reason.name.lower(), direction.name.lower(), verdict)
            packets.add_metric(labels, metric.packets)
            octets.add_metric(labels, metric.byte_count)
        return packets, octets
