"""What a datapath's configuration refuses."""

from ipaddress import IPv4Address

import pytest

from fast.datapath.datapath_config import DatapathConfig
from fast.errors import InvalidConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("routing", "bgp"),
        ("tunnel_port", 0),
        ("tunnel_port", 65536),
        ("vni", 0),
        ("vni", 1 << 24),
        ("pod_mtu", 575),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(field, value):
    with pytest.raises(InvalidConfig, match=str(value)):
        DatapathConfig(node_name="n1", node_ip=IPv4Address("192.168.77.1"), **{field: value})
