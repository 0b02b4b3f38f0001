"""``kubectl fast``: kubectl's flags, and completion."""

import pytest
from click.testing import CliRunner

from fast.ctl.fast_ctl import main
from fast.ctl.kubectl_plugin import split_flags


@pytest.mark.parametrize(
    ("arguments", "rest", "environment"),
    [
        ("lips list --context prod", "lips list", {"FAST_KUBE_CONTEXT": "prod"}),
        (
            "--kubeconfig=/tmp/k ipam why x --as ann",
            "ipam why x",
            {"KUBECONFIG": "/tmp/k", "FAST_KUBE_AS": "ann"},
        ),
        ("node n1 -- kubectl --context other", "node n1 -- kubectl --context other", {}),
        ("ipam why --context", "ipam why --context", {}),
        ("ipam why x -n shop", "ipam why x -n shop", {}),
    ],
)
def test_flags_of_kubectl_are_taken_wherever_they_stand_before_two_dashes(arguments, rest, environment):
    assert split_flags(arguments.split()) == (rest.split(), environment)


@pytest.mark.parametrize(
    ("typo", "meant"), [("local-ip", "local-ips"), ("metrcs", "metrics"), ("lisp", "lips")]
)
def test_a_mistyped_command_is_answered_with_the_nearest_one(typo, meant):
    done = CliRunner().invoke(main, [typo])
    assert done.exit_code == 2
    assert f"Did you mean {meant}" in done.output


def test_a_word_like_no_command_is_refused_without_a_guess():
    assert "Did you mean" not in CliRunner().invoke(main, ["xyzzy"]).output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_FAST_CTL_COMPLETE" in done.output


def test_completing_without_an_api_server_gives_nothing_and_fails_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("_FAST_CTL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "fast-ctl local-ips list --node ")
    monkeypatch.setenv("COMP_CWORD", "4")
    done = CliRunner().invoke(main, [], prog_name="fast-ctl")
    assert (done.exit_code, done.output.strip()) == (0, "")
