"""``kubectl exec`` by a real kubectl on the real server, whose way into a pod is a script that runs things here."""

import os
import pty
import select
import signal
import subprocess
import time

import pytest

from e2e.kubectl import serving

_POD = """
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  nodeName: n1
  containers: [{name: first, image: busybox}, {name: second, image: busybox}]
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    place = tmp_path_factory.mktemp("exec")
    enter = place / "enter"
    enter.write_text('#!/bin/sh\nexport NS=$1 POD=$2 CONTAINER=$3\nshift 4\nexec "$@"\n')
    enter.chmod(0o755)
    with serving(place, "--exec-command", str(enter)) as run:
        run.check("create", "-f", "-", stdin=_POD.encode())
        yield run


def test_output_errors_and_exit_status_are_the_commands(kubectl):
    done = kubectl("exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done.stdout == b"out\n"
    assert b"\nerr\n" in done.stderr
    assert done.returncode == 7


def test_the_command_runs_in_the_container_asked_for(kubectl):
    script = ("sh", "-c", "echo $NS $POD $CONTAINER")
    assert kubectl("exec", "box", "--", *script).stdout == b"default box first\n"
    assert kubectl("exec", "box", "-c", "second", "--", *script).stdout == b"default box second\n"


def test_input_goes_in_whole_and_its_end_is_seen(kubectl):
    data = os.urandom(1_000_000)
    done = kubectl("exec", "-i", "box", "--", "cat", stdin=data)
    assert done.stdout == data
    assert done.returncode == 0


def test_a_terminal_has_the_size_of_the_users_and_takes_control_c(kubectl):
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=theirs, check=True)
    script = "until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; echo sized; exec sleep 300"
    child = kubectl.start(
        "exec", "-it", "box", "--", "sh", "-c", script, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        _read_until(ours, b"sized\r\n")
        os.write(ours, b"\x03")
        assert child.wait(20) == 130
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def _read_until(descriptor: int, wanted: bytes, seconds: float = 20) -> None:
    seen, deadline = b"", time.monotonic() + seconds
    while wanted not in seen:
        left = deadline - time.monotonic()
        assert left > 0, f"{wanted!r} not in {seen!r}"
        if select.select([descriptor], [], [], left)[0]:
            seen += os.read(descriptor, 4096)


def test_a_kubectl_that_is_killed_takes_the_command_with_it(kubectl):
    child = kubectl.start("exec", "box", "--", "sh", "-c", "echo $$; exec sleep 300", stdout=subprocess.PIPE)
    process = os.pidfd_open(int(child.stdout.readline()))
    try:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert select.select([process], [], [], 20)[0], "the command outlives its client"
    finally:
        child.stdout.close()
        os.close(process)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none", "--", "true"), b'pods "none" not found'),
        (("box", "-c", "third", "--", "true"), b"container third is not valid for pod box"),
    ],
)
def test_what_is_not_there_is_named(kubectl, args, message):
    done = kubectl("exec", *args)
    assert message in done.stderr
    assert done.returncode == 1
