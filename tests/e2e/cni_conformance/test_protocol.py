"""Section 2 of the CNI specification: parameters, exit status, errors; section 5: the error object."""

import json

import pytest

from e2e.cni_conformance.plugin import NETWORK


def test_a_failure_is_a_status_other_than_0_and_an_error_object_on_stdout_and_nothing_else(runtime, sandbox):
    answer = runtime.call("ADD", sandbox, CNI_NETNS="/run/netns/nowhere")
    assert answer.status != 0
    assert isinstance(answer.json["code"], int)
    assert answer.json["msg"]


@pytest.mark.every_version
def test_an_error_object_has_the_version_of_the_configuration(runtime, sandbox):
    answer = runtime.call("ADD", sandbox, CNI_NETNS="/run/netns/nowhere")
    assert answer.json["cniVersion"] == runtime.version


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
def test_error_4_names_a_variable_that_is_missing(runtime, sandbox, variable):
    answer = runtime.call("ADD", sandbox, **{variable: None})
    assert answer.json["code"] == 4
    assert variable in answer.json["msg"]


def test_a_command_that_the_specification_does_not_know_is_error_4(runtime, sandbox):
    answer = runtime.call("REPLACE", sandbox)
    assert answer.json["code"] == 4
    assert "CNI_COMMAND" in answer.json["msg"]


@pytest.mark.parametrize("container_id", ["-begins-badly", "has/slash", "has space"])
def test_a_container_id_starts_alphanumeric_and_goes_on_with_alphanumerics_and_three_signs(
    runtime, sandbox, container_id
):
    assert runtime.call("ADD", sandbox, CNI_CONTAINERID=container_id).status != 0
    assert "eth0" not in runtime.interfaces(sandbox)


def test_a_container_id_may_hold_underscore_dot_and_hyphen(runtime, sandbox):
    chosen = f"{sandbox.container_id}_a.b-c"
    runtime.add(sandbox, CNI_CONTAINERID=chosen)
    runtime.delete(sandbox, CNI_CONTAINERID=chosen)
    assert "eth0" not in runtime.interfaces(sandbox)


@pytest.mark.parametrize("ifname", ["longer-than-15-bytes", "has/slash", "..", "has space", "has:colon"])
def test_an_interface_name_that_cannot_be_used_is_an_error(runtime, sandbox, ifname):
    answer = runtime.call("ADD", sandbox, CNI_IFNAME=ifname)
    assert answer.status != 0
    assert answer.json["code"]
    assert not runtime.interfaces(sandbox)


@pytest.mark.parametrize("text", ["", "{", '{"cniVersion": ', "\x00"])
def test_a_configuration_that_is_no_json_is_an_error_object(runtime, sandbox, text):
    answer = runtime.call("ADD", sandbox, text)
    assert answer.status != 0
    assert answer.json["code"]
    assert not runtime.interfaces(sandbox)


def test_a_version_that_the_plugin_does_not_speak_is_error_1(runtime, sandbox):
    answer = runtime.call("ADD", sandbox, runtime.config(cniVersion="9.9.9"))
    assert (answer.status != 0, answer.json["code"]) == (True, 1)


@pytest.mark.parametrize("name", [None, "", "-begins-badly", "has/slash"])
def test_a_network_without_a_proper_name_is_an_error(runtime, sandbox, name):
    assert runtime.call("ADD", sandbox, runtime.config(name=name)).status != 0
    assert not runtime.interfaces(sandbox)


def test_args_that_the_plugin_does_not_understand_are_ignored(runtime, sandbox):
    runtime.add(sandbox, runtime.config(args={"labels": {"a": ["b", {"c": None}]}, "cni": {"labels": []}}))


def test_unknown_cni_args_are_ignored_where_the_runtime_asks_for_it(runtime, sandbox):
    runtime.add(sandbox, CNI_ARGS="IgnoreUnknown=1;SOME_KEY=some value;OTHER=")


def test_a_failed_add_leaves_no_device_and_no_reservation(runtime, sandbox):
    before = runtime.devices()
    assert runtime.call("ADD", sandbox, CNI_NETNS="/run/netns/nowhere").status != 0
    runtime.wait_for_devices(before)
    assert not runtime.reservations(sandbox.container_id)


@pytest.mark.every_version
def test_version_answers_in_the_keys_of_the_specification_and_lists_what_the_plugin_speaks(runtime):
    answer = runtime.call("VERSION", None, json.dumps({"cniVersion": runtime.version}))
    assert answer.status == 0
    assert answer.json["cniVersion"]
    known = set(answer.json["supportedVersions"]) & {"0.3.1", "0.4.0", "1.0.0", "1.1.0"}
    assert known == set(runtime.plugin.versions)


def test_version_needs_no_container(runtime):
    assert runtime.call("VERSION", None, {"cniVersion": runtime.version, "name": NETWORK}).status == 0


@pytest.mark.every_version
@pytest.mark.since("1.0.0")
def test_version_repeats_the_version_of_its_input(runtime):
    answer = runtime.call("VERSION", None, json.dumps({"cniVersion": runtime.version}))
    assert answer.json["cniVersion"] == runtime.version
