"""What a real kubectl does with objects: apply, get, watch, describe, label, annotate, patch, delete, wait, explain."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from e2e.kubectl import serving

_CRDS = Path(__file__).parents[2] / "deploy" / "crds"

_IPS = """
apiVersion: sample.fast.io/v1alpha1
kind: Ips
metadata: {name: %s}
spec: {subnet: 10.9.0.1/16, ips: [10.9.1.0-10.9.1.9]}
"""

_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: %s, labels: {app: %s}}
data: {x: "%s"}
"""

_POD = """
apiVersion: v1
kind: Pod
metadata: {name: box, labels: {app: box}}
spec:
  nodeName: n1
  containers: [{name: first, image: "busybox:1"}, {name: second, image: "busybox:1"}]
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("objects")) as run:
        run.check("create", *(f"--filename={path}" for path in _CRDS.glob("*.yaml")))
        run.check("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
        run.check("create", "-f", "-", stdin=_POD.encode())
        yield run


def _apply(kubectl, name: str, value: str, *flags: str):
    return kubectl("apply", *flags, "-f", "-", stdin=(_MAP % (name, name, value)).encode())


def _value(kubectl, name: str) -> str:
    return kubectl.check("get", "cm", name, "-o", "jsonpath={.data.x}")


def test_a_list_in_one_document_is_created_item_by_item(kubectl):
    pool = "{apiVersion: sample.fast.io/v1alpha1, kind: Ips, metadata: {name: of-list}, spec: {subnet: 10.9.0.1/16}}"
    made = kubectl.check(
        "create",
        "-f",
        "-",
        stdin=f"""
apiVersion: v1
kind: List
items:
- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: of-list}}}}
- {pool}
""".encode(),
    )
    assert made.split() == ["configmap/of-list", "created", "ips.sample.fast.io/of-list", "created"]


def test_apply_says_created_configured_and_unchanged(kubectl):
    said = [_apply(kubectl, "client-side", value).stdout.decode().split()[-1] for value in "112"]
    assert said == ["created", "unchanged", "configured"]
    assert _value(kubectl, "client-side") == "2"


def test_diff_shows_what_apply_would_change(kubectl):
    _apply(kubectl, "diffed", "before")
    done = kubectl("diff", "-f", "-", stdin=(_MAP % ("diffed", "diffed", "after")).encode())
    assert done.returncode == 1
    assert b"-  x: before" in done.stdout
    assert b"+  x: after" in done.stdout
    assert _value(kubectl, "diffed") == "before"


def test_server_side_apply_refuses_what_another_owns_until_forced(kubectl):
    assert _apply(kubectl, "owned", "1", "--server-side", "--field-manager=one").returncode == 0
    refused = _apply(kubectl, "owned", "2", "--server-side", "--field-manager=two")
    assert refused.returncode == 1
    assert b'conflict with "one": .data.x' in refused.stderr
    forced = _apply(kubectl, "owned", "2", "--server-side", "--field-manager=two", "--force-conflicts")
    assert forced.returncode == 0
    assert _value(kubectl, "owned") == "2"


def test_what_apply_no_longer_names_goes_away(kubectl):
    text = (_MAP % ("shrinking", "shrinking", "1")).replace('{x: "1"}', '{x: "1", y: "2"}')
    for flags in ([], ["--server-side", "--force-conflicts"]):
        kubectl.check("apply", *flags, "-f", "-", stdin=text.encode())
        assert _apply(kubectl, "shrinking", "1", *flags).returncode == 0
        assert json.loads(kubectl.check("get", "cm", "shrinking", "-o", "json"))["data"] == {"x": "1"}
        kubectl.check("delete", "cm", "shrinking")


def test_a_dry_run_on_the_server_checks_and_changes_nothing(kubectl):
    assert _apply(kubectl, "dry", "1", "--dry-run=server").returncode == 0
    assert b'configmaps "dry" not found' in kubectl("get", "cm", "dry").stderr
    bad = (_IPS % "bad").replace("10.9.0.1/16", "nonsense")
    assert kubectl("apply", "--dry-run=server", "-f", "-", stdin=bad.encode()).returncode == 1


def test_an_unknown_field_is_named_by_validation(kubectl):
    text = (_IPS % "unknown").replace("spec: {", "spec: {colour: red, ")
    done = kubectl("create", "-f", "-", stdin=text.encode())
    assert done.returncode == 1
    assert b'unknown field "spec.colour"' in done.stderr


def test_tables_show_the_columns_of_pods_and_wide_ones_more(kubectl):
    head, row = kubectl.check("get", "pods", "box").splitlines()
    assert head.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["box", "0/2", "Pending", "0"]
    wide = re.split(r" {2,}", kubectl.check("get", "pods", "box", "-o", "wide").splitlines()[0])
    assert wide[5:] == ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]


def test_custom_resources_show_the_columns_of_their_definition(kubectl):
    kubectl.check("apply", "-f", "-", stdin=(_IPS % "columns").encode())
    status = '{"status": {"totalIPCount": 10, "allocatedIPCount": 3}}'
    kubectl.check("patch", "ips", "columns", "--type=merge", "--subresource=status", "-p", status)
    head, row = kubectl.check("get", "ips", "columns").splitlines()
    assert head.split() == ["NAME", "SUBNET", "TOTAL", "ALLOCATED", "FREE", "READY", "REASON", "AGE"]
    assert row.split()[:4] == ["columns", "10.9.0.1/16", "10", "3"]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("yaml", "kind: Pod\n"),
        ("json", '"kind": "Pod"'),
        ("name", "pod/box\n"),
        ("jsonpath={.spec.containers[*].name}", "first second"),
        ("custom-columns=NAME:.metadata.name,NODE:.spec.nodeName", "box    n1"),
        ("go-template={{.metadata.name}}", "box"),
    ],
)
def test_every_form_of_output_is_given(kubectl, form, wanted):
    assert wanted in kubectl.check("get", "pod", "box", "-o", form)


def test_selectors_choose_by_labels_and_fields(kubectl):
    for name in ("red", "green", "blue"):
        _apply(kubectl, name, "1")
    assert kubectl.check("get", "cm", "-l", "app in (red, blue)", "-o", "name").split() == [
        "configmap/blue",
        "configmap/red",
    ]
    assert kubectl.check("get", "pods", "--field-selector=spec.nodeName=n1", "-o", "name") == "pod/box\n"
    assert not kubectl.check("get", "pods", "--field-selector=spec.nodeName=n2", "-o", "name")
    done = kubectl("get", "pods", "--field-selector=spec.colour=red")
    assert b'field label not supported: "spec.colour"' in done.stderr or b"not supported" in done.stderr


def test_a_watch_prints_a_row_for_every_change(kubectl):
    _apply(kubectl, "watched", "1")
    child = kubectl.start("get", "cm", "watched", "-w", "--output-watch-events", stdout=subprocess.PIPE)
    try:
        lines = [child.stdout.readline().split()[:2] for _ in range(2)]
        assert lines == [[b"EVENT", b"NAME"], [b"ADDED", b"watched"]]
        _apply(kubectl, "watched", "2")
        kubectl.check("delete", "cm", "watched")
        assert [child.stdout.readline().split()[0] for _ in range(2)] == [b"MODIFIED", b"DELETED"]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_labels_and_annotations_are_set_kept_and_taken_away(kubectl):
    _apply(kubectl, "labelled", "1")
    kubectl.check("label", "cm", "labelled", "colour=red")
    assert kubectl("label", "cm", "labelled", "colour=blue").returncode == 1
    kubectl.check("label", "cm", "labelled", "colour=blue", "--overwrite")
    kubectl.check("annotate", "cm", "labelled", "note=a b")
    meta = json.loads(kubectl.check("get", "cm", "labelled", "-o", "json"))["metadata"]
    assert (meta["labels"]["colour"], meta["annotations"]["note"]) == ("blue", "a b")
    kubectl.check("label", "cm", "labelled", "colour-")
    kubectl.check("annotate", "cm", "labelled", "note-")
    meta = json.loads(kubectl.check("get", "cm", "labelled", "-o", "json"))["metadata"]
    assert ("colour" in meta["labels"], "note" in meta["annotations"]) == (False, False)


def test_a_merge_patch_and_a_json_patch_change_what_they_name(kubectl):
    _apply(kubectl, "patched", "1")
    kubectl.check("patch", "cm", "patched", "--type=merge", "-p", '{"data": {"x": null, "y": "2"}}')
    kubectl.check(
        "patch", "cm", "patched", "--type=json", "-p", '[{"op": "add", "path": "/data/z", "value": "3"}]'
    )
    assert json.loads(kubectl.check("get", "cm", "patched", "-o", "json"))["data"] == {"y": "2", "z": "3"}
    failed = '[{"op": "test", "path": "/data/y", "value": "9"}]'
    assert kubectl("patch", "cm", "patched", "--type=json", "-p", failed).returncode == 1


def test_a_strategic_patch_merges_containers_by_name_and_custom_kinds_refuse_it(kubectl):
    patch = '{"spec": {"containers": [{"name": "second", "image": "busybox:2"}]}}'
    kubectl.check("patch", "pod", "box", "-p", patch)
    images = kubectl.check("get", "pod", "box", "-o", "jsonpath={.spec.containers[*].image}")
    assert images == "busybox:1 busybox:2"
    kubectl.check("apply", "-f", "-", stdin=(_IPS % "strategic").encode())
    done = kubectl("patch", "ips", "strategic", "--type=strategic", "-p", '{"spec": {}}')
    assert done.returncode == 1
    assert b"strategic" in done.stderr or b"UnsupportedMediaType" in done.stderr


def test_replace_needs_the_state_it_was_made_from(kubectl):
    _apply(kubectl, "replaced", "1")
    text = kubectl.check("get", "cm", "replaced", "-o", "json")
    kubectl.check("replace", "-f", "-", stdin=text.replace('"x": "1"', '"x": "2"').encode())
    done = kubectl("replace", "-f", "-", stdin=text.replace('"x": "1"', '"x": "3"').encode())
    assert done.returncode == 1
    assert b"the object has been modified" in done.stderr


def test_delete_by_selector_waits_until_all_are_gone(kubectl):
    for name in ("gone-a", "gone-b"):
        _apply(kubectl, name, "1")
        kubectl.check("label", "cm", name, "set=gone")
    said = kubectl.check("delete", "cm", "-l", "set=gone", "--wait")
    assert said.count("deleted") == 2
    assert not kubectl.check("get", "cm", "-l", "set=gone", "-o", "name")
    assert kubectl.check("delete", "cm", "gone-a", "--ignore-not-found") == ""


def test_delete_waits_for_finalizers_or_not_as_asked(kubectl):
    _apply(kubectl, "held", "1")
    kubectl.check("patch", "cm", "held", "-p", '{"metadata": {"finalizers": ["example.org/held"]}}')
    assert kubectl("delete", "cm", "held", "--timeout=1s").returncode == 1
    kubectl.check("delete", "cm", "held", "--wait=false")
    assert kubectl.check("get", "cm", "held", "-o", "jsonpath={.metadata.deletionTimestamp}")
    kubectl.check("patch", "cm", "held", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    kubectl.check("wait", "--for=delete", "cm/held", "--timeout=20s")


def test_wait_sees_a_value_of_a_custom_resource(kubectl):
    kubectl.check("apply", "-f", "-", stdin=(_IPS % "waited").encode())
    child = kubectl.start("wait", "ips/waited", "--for=jsonpath={.status.totalIPCount}=10", "--timeout=20s")
    try:
        status = ["--type=merge", "--subresource=status", "-p", '{"status": {"totalIPCount": 10}}']
        kubectl.check("patch", "ips", "waited", *status)
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()


def test_events_are_listed_for_an_object(kubectl):
    uid = kubectl.check("get", "pod", "box", "-o", "jsonpath={.metadata.uid}")
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "box", "uid": uid}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "box."},
        "involvedObject": about,
        "type": "Warning",
        "reason": "NoAddress",
        "message": "the pool is exhausted",
        "count": 1,
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "source": {"component": "fast"},
    }
    kubectl.check("create", "-f", "-", stdin=json.dumps(event).encode())
    assert re.search(
        r"Warning +NoAddress +Pod/box +the pool is exhausted", kubectl.check("events", "--for=pod/box")
    )
    assert "NoAddress" in kubectl.check("get", "events", "--field-selector=involvedObject.name=box")
    assert re.search(r"Warning +NoAddress .*the pool is exhausted", kubectl.check("describe", "pod", "box"))


def test_describe_shows_custom_resources_with_their_fields(kubectl):
    kubectl.check("apply", "-f", "-", stdin=(_IPS % "described").encode())
    assert re.search(r"Subnet: +10.9.0.1/16", kubectl.check("describe", "ips", "described"))


def test_api_resources_lists_built_in_and_custom_kinds_with_short_names(kubectl):
    rows = {line.split()[0]: line.split() for line in kubectl.check("api-resources").splitlines()}
    assert rows["pods"] == ["pods", "po", "v1", "true", "Pod"]
    assert rows["ipendpoints"] == ["ipendpoints", "ipe", "sample.fast.io/v1alpha1", "false", "IpEndpoint"]
    assert "sample.fast.io/v1alpha1" in kubectl.check("api-versions").split()


def test_explain_tells_what_a_field_is(kubectl):
    assert re.search(r"FIELD: +nodeName <string>", kubectl.check("explain", "pod.spec.nodeName"))
    assert re.search(r"FIELD: +subnet <string>", kubectl.check("explain", "ips.spec.subnet"))
    assert b'field "colour" does not exist' in kubectl("explain", "ips.spec.colour").stderr


def test_the_version_is_told(kubectl):
    assert "Server Version: v1." in kubectl.check("version")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("logs", "box"), "could not find the requested resource|not found|NotFound"),
        (("top", "nodes"), "Metrics API not available"),
        (("get", "ingresses"), 'the server doesn\'t have a resource type "ingresses"'),
        (("get", "pods", "none"), 'pods "none" not found'),
    ],
)
def test_what_is_not_served_is_said_clearly(kubectl, args, message):
    done = kubectl(*args)
    assert done.returncode == 1
    assert re.search(message, done.stderr.decode())
