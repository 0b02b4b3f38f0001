"""The controller as a whole, without a server: what its metrics show."""

from prometheus_client import CollectorRegistry

from fakes.store import a_pool
from fast.controller.controller import Controller, ControllerConfig
from fast.ipam.ipam_metrics import IpamMetrics
from fast.kube import ClusterConfig, KubeClient

CONFIG = ControllerConfig(
    kubeconfig=None,
    namespace="fast-system",
    leader_elect=True,
    identity="me",
    http_address="127.0.0.1:0",
    gc_interval_seconds=60.0,
)


async def test_a_pool_that_is_gone_is_in_no_gauge():
    registry = CollectorRegistry()
    async with KubeClient(ClusterConfig("http://127.0.0.1:9")) as client:
        controller = Controller(client, CONFIG, IpamMetrics(registry))
        pools = controller._store.pool_informer
        labels = {"pool": "a", "state": "free"}
        pools._put(a_pool("a", "10.244.1.0-10.244.1.9"))
        controller._update_gauges()
        assert registry.get_sample_value("fast_ipam_addresses", labels) == 10
        pools._drop("a")
        controller._update_gauges()
        assert registry.get_sample_value("fast_ipam_addresses", labels) is None
