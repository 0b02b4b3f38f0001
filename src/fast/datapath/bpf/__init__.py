"""The eBPF data plane from Python: spec (data) → object (loaded) → link (attached), and typed access to the maps.

Owns what is pinned under the bpf filesystem. Knows neither netlink, devices nor Kubernetes: it is told interface
indexes and addresses. Everything here blocks and may be called from any thread. The programs are in ``bpf/``.

A node's set-up, in short::

    pins = PinDirectory(Path("/sys/fs/bpf/fast"))
    loaded = install(DATAPATH.configured(Config(node_ip=...)).sized(fast_flow_table=65_536), pins)
    with loaded.local_devices as devices, loaded.local_pods as pods:
        devices.put(Device.TUNNEL, LocalDev(ifindex, mtu))
        pods.put(address, LocalPod(ifindex, pod_mac, host_mac))
    Links(pins).attach(ifindex, loaded.programs[FROM_POD])
"""

from fast.datapath.bpf.event_ring import EventReader
from fast.datapath.bpf.features import FEATURES, Feature
from fast.datapath.bpf.install import install
from fast.datapath.bpf.layout import (
    ClusterPod,
    Config,
    ConfigFlag,
    DevFlag,
    Device,
    Event,
    EventSwitch,
    Flow,
    FlowFlag,
    FlowKey,
    FlowLimit,
    Interface,
    Kind,
    LocalDev,
    LocalPod,
    LocalPodFlag,
    Metric,
    Routing,
    protocol_name,
)
from fast.datapath.bpf.links import Attached, AttachMode, Links
from fast.datapath.bpf.map_spec import MapSpec
from fast.datapath.bpf.maps import (
    ClusterPods,
    FlowLimits,
    Flows,
    Interfaces,
    LocalDevices,
    LocalPods,
    Map,
    Metrics,
)
from fast.datapath.bpf.objects import Object, Program, RunContext, RunResult, load
from fast.datapath.bpf.pins import PinDirectory
from fast.datapath.bpf.reasons import PacketDirection, Reason
from fast.datapath.bpf.spec import (
    DATAPATH,
    FROM_OVERLAY,
    FROM_POD,
    FROM_UNDERLAY,
    TO_OVERLAY,
    TO_POD,
    Direction,
    ObjectSpec,
    ProgramSpec,
)

__all__ = [
    "DATAPATH",
    "FEATURES",
    "FROM_OVERLAY",
    "FROM_POD",
    "FROM_UNDERLAY",
    "TO_OVERLAY",
    "TO_POD",
    "AttachMode",
    "Attached",
    "ClusterPod",
    "ClusterPods",
    "Config",
    "ConfigFlag",
    "DevFlag",
    "Device",
    "Direction",
    "Event",
    "EventReader",
    "EventSwitch",
    "Feature",
    "Flow",
    "FlowFlag",
    "FlowKey",
    "FlowLimit",
    "FlowLimits",
    "Flows",
    "Interface",
    "Interfaces",
    "Kind",
    "Links",
    "LocalDev",
    "LocalDevices",
    "LocalPod",
    "LocalPodFlag",
    "LocalPods",
    "Map",
    "MapSpec",
    "Metric",
    "Metrics",
    "Object",
    "ObjectSpec",
    "PacketDirection",
    "PinDirectory",
    "Program",
    "ProgramSpec",
    "Reason",
    "Routing",
    "RunContext",
    "RunResult",
    "install",
    "load",
    "protocol_name",
]
