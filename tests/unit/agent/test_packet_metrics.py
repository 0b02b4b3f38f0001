"""The eBPF programs' counters as Prometheus sees them."""

from prometheus_client import CollectorRegistry, generate_latest

from fast.agent.packet_metrics import PacketCollector
from fast.datapath.bpf.layout import Metric
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.errors import DatapathError


def scraped(read):
    registry = CollectorRegistry()
    registry.register(PacketCollector(read))
    return generate_latest(registry).decode()


def test_packets_and_bytes_are_told_by_reason_direction_and_verdict():
    text = scraped(
        lambda: {
            (Reason.FORWARD_TUNNEL, PacketDirection.FROM_POD): Metric(7, 700),
            (Reason.DROP_SPOOFED_MAC, PacketDirection.FROM_POD): Metric(1, 60),
        }
    )
    labels = 'direction="from_pod",reason="forward_tunnel",verdict="forward"'
    assert f"fast_packets_total{{{labels}}} 7.0" in text
    assert f"fast_packet_bytes_total{{{labels}}} 700.0" in text
    assert 'fast_packets_total{direction="from_pod",reason="drop_spoofed_mac",verdict="drop"} 1.0' in text


def test_while_the_datapath_is_not_up_a_scrape_has_no_packets_and_no_error():
    def not_up():
        raise DatapathError("not up")

    assert "fast_packets_total{" not in scraped(not_up)
