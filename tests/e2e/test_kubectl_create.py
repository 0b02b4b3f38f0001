"""``kubectl create KIND`` and ``kubectl auth`` send protobuf: what arrives is what kubectl shows on a dry run."""

import json
import shlex

import pytest

from e2e.kubectl import serving


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("create")) as run:
        yield run


def _lost(wanted, got, path="") -> list[str]:
    """Find what was wanted and did not arrive as it was."""
    if isinstance(wanted, dict):
        items = [(key, value) for key, value in wanted.items() if value not in ({}, None, "")]
        return [text for key, value in items for text in _lost(value, (got or {}).get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        pairs = enumerate(zip(wanted, got, strict=True))
        return [text for index, (one, other) in pairs for text in _lost(one, other, f"{path}[{index}]")]
    return [] if wanted == got else [f"{path}: {wanted!r} became {got!r}"]


@pytest.mark.parametrize(
    "what",
    [
        "namespace shop",
        "configmap settings --from-literal=a=b --from-literal=empty=",
        "secret generic keys --from-literal=a=b",
        "serviceaccount robot",
        "role reader --verb=get,list --resource=pods,deployments.apps --resource-name=a",
        "clusterrole status-reader --verb=get --resource=nodes/status",
        "clusterrole scraper --verb=get --non-resource-url=/metrics",
        "rolebinding readers --role=reader --user=jane --group=devs --serviceaccount=default:robot",
        "clusterrolebinding status-readers --clusterrole=status-reader --group=devs",
        "deployment none --image=busybox:1 --replicas=0 --port=80 -- sleep 1d",
        "deployment two --image=busybox:1 --image=nginx",
        "service clusterip plain --tcp=80:8080 --tcp=81:named",
        "service externalname alias --external-name=example.org",
    ],
)
def test_what_kubectl_creates_arrives_whole(kubectl, what):
    kind, name, *more = shlex.split(what)
    if kind in ("secret", "service"):
        kind, name, more = f"{kind} {name}", more[0], more[1:]
    command = ["create", *kind.split(), name, "-o", "json"]
    wanted = json.loads(kubectl.check(*command, "--dry-run=client", *more))
    assert not _lost(wanted, json.loads(kubectl.check(*command, *more)))


def test_zero_replicas_are_not_one(kubectl):
    kubectl.check("create", "deployment", "zero", "--image=busybox", "--replicas=0")
    assert kubectl.check("get", "deployment", "zero", "-o", "jsonpath={.spec.replicas}") == "0"


def test_a_kind_that_is_not_served_is_said_to_be_so(kubectl):
    done = kubectl("create", "quota", "q", "--hard=cpu=1")
    assert b"the server could not find the requested resource" in done.stderr


def test_a_user_learns_what_it_may_do(kubectl):
    kubectl.check("create", "clusterrole", "pod-reader", "--verb=get,list", "--resource=pods")
    kubectl.check("create", "clusterrolebinding", "pod-readers", "--clusterrole=pod-reader", "--user=joe")
    assert "fast-admin" in kubectl.check("auth", "whoami")
    assert kubectl.check("auth", "can-i", "delete", "nodes").strip() == "yes"
    assert kubectl.check("auth", "can-i", "list", "pods", "--as=joe").strip() == "yes"
    assert kubectl("auth", "can-i", "delete", "pods", "--as=joe").stdout.strip() == b"no"
    assert "pods" in kubectl.check("auth", "can-i", "--list", "--as=joe")


def test_what_a_user_may_not_do_is_refused_with_its_name_and_the_verb(kubectl):
    done = kubectl("get", "nodes", "--as=stranger")
    message = 'nodes is forbidden: User "stranger" cannot list resource "nodes" in API group "" at the cluster scope'
    assert message in done.stderr.decode()
