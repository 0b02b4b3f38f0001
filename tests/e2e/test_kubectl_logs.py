"""``kubectl logs``: what a container wrote, by the way into its pod."""

import subprocess
import time

import pytest

from e2e.kubectl import serving
from fast_playground.apiserver import exec as exec_
from fast_playground.cluster import enter

_POD = """
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  nodeName: n1
  containers: [{name: first, image: busybox}, {name: second, image: busybox}]
"""
#: Checks that a log is asked for where kubelets keep it, and reads it in a directory of the test.
_ENTER = """#!/bin/sh
ns=$1 pod=$2
shift 4
for path; do :; done
case "$1 $path" in "tail /var/log/pods/${ns}_${pod}_"*/*.log) ;; *) exit 99 ;; esac
follow=
[ "$4" = -F ] && follow=-F
exec tail -n "$3" $follow "PLACE/${path##*/}"
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    """A kubectl; the way into pods keeps the logs of the "node" below a directory of the test."""
    place = tmp_path_factory.mktemp("logs")
    way = place / "enter"
    way.write_text(_ENTER.replace("PLACE", str(place)))
    way.chmod(0o755)
    (place / "first.log").write_text("".join(f"line {number}\n" for number in range(5)))
    (place / "second.log").write_text("another\n")
    with serving(place, "--exec-command", str(way)) as run:
        run.check("create", "-f", "-", stdin=_POD.encode())
        run.place = place
        yield run


def test_everything_that_a_container_wrote_is_shown(kubectl):
    assert kubectl.check("logs", "box").splitlines() == [f"line {number}" for number in range(5)]
    assert kubectl.check("logs", "box", "-c", "second") == "another\n"


def test_the_last_lines_are_shown_alone_if_asked_for(kubectl):
    assert kubectl.check("logs", "box", "--tail=2").splitlines() == ["line 3", "line 4"]


def test_following_shows_what_comes_and_ends_with_the_client(kubectl):
    child = kubectl.start("logs", "-f", "--tail=1", "box", stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"line 4\n"
        with (kubectl.place / "first.log").open("a") as file:
            file.write("line 5\n")
        assert child.stdout.readline() == b"line 5\n"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-f", f"^tail -n 1 -F {kubectl.place}"], check=False).returncode == 0:
        assert time.monotonic() < deadline, "the reader of the log outlived its client"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--previous"], "this server does not support previous of logs"),
        (["-c", "third"], "container third is not valid for pod box"),
        (["--timestamps"], "this server does not support timestamps of logs"),
    ],
)
def test_what_is_not_supported_is_refused(kubectl, flags, message):
    done = kubectl("logs", "box", *flags)
    assert done.returncode == 1
    assert message in done.stderr.decode()


def test_server_and_playground_mean_the_same_by_on_node():
    assert enter.ON_NODE == exec_.ON_NODE
