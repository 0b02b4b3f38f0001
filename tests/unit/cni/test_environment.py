"""What is read from the environment of a CNI call."""

import ipaddress

import pytest

from fast.api.ipendpoint import PodRef
from fast.cni import CallError
from fast.cni.environment import parse_invocation

ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
KUBERNETES = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1"


def parse(**changes):
    found = ADD | changes
    return parse_invocation({key: value for key, value in found.items() if value is not None})


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        (command, variable)
        for command in ("ADD", "CHECK", "DEL")
        for variable in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
        if (command, variable) != ("DEL", "CNI_NETNS")
    ],
)
@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_is_error_4_and_named(command, variable, value):
    with pytest.raises(CallError, match=variable) as caught:
        parse(CNI_COMMAND=command, **{variable: value})
    assert caught.value.code == 4


def test_every_missing_variable_is_named_at_once():
    with pytest.raises(CallError, match="CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"):
        parse_invocation({"CNI_COMMAND": "ADD"})


@pytest.mark.parametrize("command", ["STATUS", "GC", "VERSION"])
def test_verbs_without_a_container_need_no_variable_but_the_command(command):
    assert parse_invocation({"CNI_COMMAND": command}).container_id == ""


def test_del_may_come_without_a_namespace():
    assert parse(CNI_COMMAND="DEL", CNI_NETNS=None).netns == ""


@pytest.mark.parametrize("container_id", ["../etc/passwd", ".hidden", "a:b", "a\nb", "c" * 161, "ü"])
def test_a_container_id_that_could_not_name_a_file_is_refused(container_id):
    with pytest.raises(CallError, match="CNI_CONTAINERID"):
        parse(CNI_CONTAINERID=container_id)


@pytest.mark.parametrize(
    "ifname",
    ["eth0123456789abc", "..", ".", "a/b", "a:b", "a b", "a\tb", "eth%d", "%", "lo", "all", "default"],
)
def test_a_name_that_no_interface_can_have_is_refused(ifname):
    with pytest.raises(CallError, match="CNI_IFNAME"):
        parse(CNI_IFNAME=ifname)


@pytest.mark.parametrize("ifname", ["eth0", "a", "eth0.100", "...", "fifteen-bytes-x"])
def test_a_name_that_an_interface_can_have_is_taken(ifname):
    assert parse(CNI_IFNAME=ifname).ifname == ifname


@pytest.mark.parametrize(("uid", "expected"), [("", ""), (";K8S_POD_UID=u1", "u1")])
def test_kubernetes_keys_name_the_pod(uid, expected):
    assert parse(CNI_ARGS=KUBERNETES + uid).pod == PodRef("ns", "web-0", expected)


@pytest.mark.parametrize("args", ["", "IgnoreUnknown=1", "K8S_POD_NAME=podmans-container", ";;"])
def test_without_a_namespace_it_is_a_plain_container(args):
    assert parse(CNI_ARGS=args).pod is None


@pytest.mark.parametrize("args", ["no-equals-sign", "=value", "a=b;c"])
def test_args_that_are_not_key_and_value_are_error_4(args):
    with pytest.raises(CallError, match="CNI_ARGS") as caught:
        parse(CNI_ARGS=args)
    assert caught.value.code == 4


def test_a_value_may_hold_an_equals_sign_and_an_unknown_key_does_no_harm():
    pod = parse(CNI_ARGS="LABELS=a=b;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=a=b").pod
    assert pod == PodRef("ns", "a=b", "")


def test_ip_asks_for_addresses_with_or_without_a_prefix_length():
    wanted = parse(CNI_ARGS="IP=10.0.0.1/24,fd00::1").addresses
    assert wanted == (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1"))


def test_ip_that_is_no_address_is_error_4():
    with pytest.raises(CallError, match="IP=somewhere"):
        parse(CNI_ARGS="IP=somewhere")


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"])
@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_a_value_that_is_not_utf8_is_error_4_and_named(command, variable):
    with pytest.raises(CallError, match=variable) as caught:
        parse(CNI_COMMAND=command, **{variable: "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=\udcff"})
    assert caught.value.code == 4


@pytest.mark.parametrize("variable", ["CNI_NETNS", "CNI_ARGS", "CNI_PATH"])
@pytest.mark.parametrize("value", ["\udcff", "no-equals-sign", "IP=somewhere", "K8S_POD_NAMESPACE=alone"])
def test_del_heeds_nothing_but_container_and_interface(variable, value):
    found = parse(CNI_COMMAND="DEL", **{variable: value})
    assert (found.key, found.addresses) == (("c1", "eth0"), ())


@pytest.mark.parametrize("ifname", ["eth%d", "a b", "lo"])
def test_del_takes_a_name_that_an_earlier_version_served(ifname):
    assert parse(CNI_COMMAND="DEL", CNI_IFNAME=ifname).ifname == ifname


@pytest.mark.parametrize("ifname", ["../x", "a/b", "eth0123456789abc", "\udcff"])
def test_del_refuses_a_name_that_could_not_name_a_tombstone(ifname):
    with pytest.raises(CallError, match="CNI_IFNAME"):
        parse(CNI_COMMAND="DEL", CNI_IFNAME=ifname)
