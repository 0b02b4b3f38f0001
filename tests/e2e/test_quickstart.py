"""``make demo``: the quick start, as a new user runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from fast_playground.cluster.directory import StateDirectory
from fast_playground.cluster.lifecycle import fresh_name
from fast_playground.cluster.processes import find_processes

DEMO = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "demo")]


def test_the_quick_start_runs_and_says_what_it_saw():
    began = time.monotonic()
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 90
    assert done.stdout.count("5 packets transmitted, 5 received, 0% packet loss") == 2
    for address in ("10.244.10.0", "10.244.10.1", "10.244.100.0", "10.244.100.1"):
        assert re.search(
            rf"^busybox1?-\S+ +1/1 +Running .* {re.escape(address)} +n[12] ", done.stdout, re.MULTILINE
        )


def test_an_interrupted_quick_start_leaves_nothing_behind():
    name = fresh_name("demo")
    demo = subprocess.Popen(
        [*DEMO, "--name", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "deployment.apps/busybox created" in line:
            demo.send_signal(signal.SIGTERM)
            break
    demo.stdout.read()
    assert demo.wait(60) == 128 + signal.SIGTERM
    assert not find_processes(name)
    assert not StateDirectory(name).path.exists()


def test_a_quick_start_that_is_not_as_it_says_fails(tmp_path):
    """A kubectl that shows 1 lost packet: the demo must not call that right."""
    liar = tmp_path / "kubectl"
    kubectl = Path(sys.executable).parent / "kubectl"
    liar.write_text(
        f'#!/bin/sh\n{kubectl} "$@" | sed "s/5 received, 0% packet loss/4 received, 20% packet loss/"\n'
    )
    liar.chmod(0o755)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}:{os.defpath}:/usr/sbin:/sbin",
    }
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=150, check=False, env=environment)
    assert done.returncode == 1
    # Two nodes claim at once: which of the two addresses the first node's pod has is theirs to race for.
    assert re.search(r"^✗ packets to 10\.244\.100\.[01] were lost$", done.stdout, re.MULTILINE)
