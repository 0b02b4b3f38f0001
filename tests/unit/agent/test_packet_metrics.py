"""The counters of the eBPF programs and of the nftables table as Prometheus sees them."""

from prometheus_client import CollectorRegistry, generate_latest

from fast.agent.node.packet_metrics import PacketCollector
from fast.datapath.bpf.layout import Metric
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.errors import DatapathError, NftablesError


def scraped(read=dict, refused=dict):
    registry = CollectorRegistry()
    registry.register(PacketCollector(read, refused))
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

    assert "fast_packets_total{" not in scraped(not_up, not_up)


def test_what_the_firewall_refused_is_told_under_a_reason_of_its_own_and_its_absence_hides_nothing_else():
    labels = 'direction="from_pod",reason="drop_tunnel_port_translated",verdict="drop"'
    text = scraped(refused=lambda: {("drop_tunnel_port_translated", "from_pod"): Metric(3, 90)})
    assert f"fast_packets_total{{{labels}}} 3.0" in text
    assert f"fast_packet_bytes_total{{{labels}}} 90.0" in text

    def no_table():
        raise NftablesError("no such table")

    text = scraped(lambda: {(Reason.STACK_NODE, PacketDirection.FROM_POD): Metric(1, 60)}, no_table)
    assert 'reason="stack_node"' in text
    assert labels not in text
