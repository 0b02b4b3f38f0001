"""Names of the resources that Fast deals with. Their kinds are in ``registry``."""

from __future__ import annotations

from typing import NamedTuple


class GVR(NamedTuple):
    """Group, version and plural name of a resource, as in a request's path."""

    group: str
    version: str
    resource: str

    @property
    def group_version(self) -> str:
        """``group/version``, or the version alone for the core group: an object's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version


NAMESPACES = GVR("", "v1", "namespaces")
NODES = GVR("", "v1", "nodes")
PODS = GVR("", "v1", "pods")
EVENTS = GVR("", "v1", "events")
SERVICE_ACCOUNTS = GVR("", "v1", "serviceaccounts")
SERVICES = GVR("", "v1", "services")
CONFIG_MAPS = GVR("", "v1", "configmaps")
SECRETS = GVR("", "v1", "secrets")
DEPLOYMENTS = GVR("apps", "v1", "deployments")
REPLICA_SETS = GVR("apps", "v1", "replicasets")
STATEFUL_SETS = GVR("apps", "v1", "statefulsets")
NETWORK_POLICIES = GVR("networking.k8s.io", "v1", "networkpolicies")
LEASES = GVR("coordination.k8s.io", "v1", "leases")
ROLES = GVR("rbac.authorization.k8s.io", "v1", "roles")
ROLE_BINDINGS = GVR("rbac.authorization.k8s.io", "v1", "rolebindings")
CLUSTER_ROLES = GVR("rbac.authorization.k8s.io", "v1", "clusterroles")
CLUSTER_ROLE_BINDINGS = GVR("rbac.authorization.k8s.io", "v1", "clusterrolebindings")
ADMISSION_POLICIES = GVR("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")
ADMISSION_POLICY_BINDINGS = GVR("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings")
CUSTOM_RESOURCE_DEFINITIONS = GVR("apiextensions.k8s.io", "v1", "customresourcedefinitions")
