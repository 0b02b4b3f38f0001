"""The live reads of the garbage collection: what is there but cannot be read never counts as gone."""

import math

import pytest

from fakes.nasty_server import nasty_server
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.meta import ObjectMeta
from fast.ipam.release.controller_sweep import plan_sweep
from fast.ipam.rules.controller_gc_rules import on_retained
from fast.ipam.rules.decision import Action
from fast.ipam.store.live_reads import KubeCluster
from fast.kube import ClusterConfig, KubeClient


@pytest.fixture
async def cluster():
    """A cluster each of whose objects has a ``spec`` that does not fit."""

    def answer(_):
        metadata = {"name": "odd", "namespace": "default", "uid": "uid-of-odd"}
        item = {"metadata": metadata, "spec": "what no schema would allow"}
        return 200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": [item]}

    async with nasty_server() as nasty, KubeClient(ClusterConfig(nasty.url)) as client:
        nasty.answer = answer
        yield KubeCluster(client, lambda node: math.inf)


def record(**spec):
    return IpEndpoint(metadata=ObjectMeta(name="10.244.1.1"), spec=IpEndpointSpec(pool="odd", **spec))


@pytest.mark.parametrize("ordinal", [0, 7])
async def test_a_stateful_set_that_cannot_be_read_keeps_the_addresses_of_all_its_pods(cluster, ordinal):
    sets = await cluster.stateful_sets()
    retained = record(sticky_key=f"uid-of-odd/{ordinal}")
    assert on_retained(retained, sets.get("uid-of-odd")).action is Action.KEEP


@pytest.mark.parametrize("spec", [{"sticky_key": "uid-of-odd/3"}, {"container_id": "c1", "node": "odd"}])
async def test_a_sweep_over_pools_nodes_and_stateful_sets_that_cannot_be_read_frees_nothing(cluster, spec):
    plan = await plan_sweep([record(**spec)], cluster)
    assert (plan.to_free, len(plan.kept)) == ([], 1)
