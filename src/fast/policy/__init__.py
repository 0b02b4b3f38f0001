"""NetworkPolicy and ClusterNetworkPolicy → rule sets, classes and the writes that bring them into the maps.

Pure: objects in, values out. No kernel, no API client, no asyncio, no clock. It owns the meaning of policies, the
numbers of rule sets and classes, and the order of writes; it must not know how an object was fetched or how a map is
written.

:class:`PolicyTables` takes events and gives plans; ``judge`` says what the programs make of the maps, ``oracle`` what
the API's text says, ``explain`` why.
"""

from fast.policy.compiled_maps import MapReader, Maps
from fast.policy.map_layout import Capacity, Map, PodFlag, PodPolicy, RuleSetFlag, RuleSetValue
from fast.policy.plan import Delete, Plan, Put, SetClass, SetPod, Step, Write
from fast.policy.policy_objects import (
    ANNOTATION_MODE,
    Direction,
    LocalPod,
    NamedPort,
    Namespace,
    NodeAddress,
    Packet,
    PodAddress,
    PolicyRef,
    Problem,
    ProblemKind,
)
from fast.policy.policy_tables import PolicyTables

__all__ = [
    "ANNOTATION_MODE",
    "Capacity",
    "Delete",
    "Direction",
    "LocalPod",
    "Map",
    "MapReader",
    "Maps",
    "NamedPort",
    "Namespace",
    "NodeAddress",
    "Packet",
    "Plan",
    "PodAddress",
    "PodFlag",
    "PodPolicy",
    "PolicyRef",
    "PolicyTables",
    "Problem",
    "ProblemKind",
    "Put",
    "RuleSetFlag",
    "RuleSetValue",
    "SetClass",
    "SetPod",
    "Step",
    "Write",
]
