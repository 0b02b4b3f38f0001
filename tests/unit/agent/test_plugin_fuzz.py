"""fast-cni built with sanitizers, given any environment, configuration and reply: it ends as the specification says."""

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fast.agent.cni.tombstones import Tombstones

SOURCE = Path(__file__).parents[3] / "cni-plugin" / "fast-cni.c"


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory):
    """The plugin, which aborts at the first memory error or undefined behaviour."""
    binary = tmp_path_factory.mktemp("sanitized") / "fast-cni"
    flags = ["-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compiler = shutil.which("gcc") or shutil.which("clang")
    assert compiler, "no C compiler"
    subprocess.run([compiler, *flags, "-o", binary, SOURCE], check=True)
    return binary


class OneReply:
    """A socket that takes one connection, reads what comes, and answers with given bytes."""

    def __init__(self, path, reply):
        self.request = b""
        self._reply = reply
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(10)
        self._thread = threading.Thread(target=self._serve)

    def _serve(self):
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(10)
            stream = connection.makefile("rb")
            header = stream.read(8)
            if not header:
                return
            self.request = header + stream.read(sum(struct.unpack("<II", header)))
            connection.sendall(self._reply)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_UNIX) as nobody:  # ends a thread that still waits
            nobody.connect(self._listener.getsockname())
        self._thread.join()
        self._listener.close()


ANY = st.binary(max_size=40).map(lambda found: found.replace(b"\0", b""))
NAMES = st.sampled_from([b"CNI_CONTAINERID", b"CNI_IFNAME", b"CNI_NETNS", b"CNI_ARGS", b"CNI_PATH", b"CNI_X"])
COMMANDS = st.sampled_from([b"ADD", b"DEL", b"CHECK", b"STATUS", b"GC", b"VERSION", b"", b"add"]) | ANY
STDINS = st.binary(max_size=80) | st.sampled_from(
    [
        b'{"cniVersion":"0.4.0"}',
        b'{"cniVersion"',
        b'{"cniVersion":"\\',
        b'{"a":"\\"cniVersion',
        b'"\\',
        b"]]]]",
        b"{" * 500,
    ]
)
REPLIES = (
    st.none()
    | st.binary(max_size=40)
    | st.builds(
        lambda status, text, more: struct.pack("<II", status, max(0, len(text) + more)) + text,
        st.integers(0, 2**32 - 1),
        st.binary(max_size=40),
        st.sampled_from([0, 0, 0, -1, 1, 2**31]),
    )
)


def in_json(stdout):
    answer = json.loads(stdout)
    return isinstance(answer, dict) and {"cniVersion", "code", "msg"} <= answer.keys()


@settings(max_examples=200, deadline=None)
@given(COMMANDS, st.dictionaries(NAMES, ANY, max_size=4), STDINS, REPLIES)
@example(b"DEL", {b"CNI_CONTAINERID": b"c1", b"CNI_IFNAME": b"eth\xff"}, b"{}", None)
@example(b"DEL", {b"CNI_CONTAINERID": b"c" * 200, b"CNI_IFNAME": b"fifteen-bytes-x"}, b"{}", None)
@example(b"ADD", {b"CNI_NETNS": b"/"}, b"{}", struct.pack("<II", 3, 2) + b"{}")
@example(b"DEL", {b"CNI_CONTAINERID": b"c1", b"CNI_IFNAME": b"\xed\xa0\x80"}, b"{}", b"")
def test_it_ends_by_the_specification_whatever_it_is_given(
    sanitized, tmp_path_factory, command, env, stdin, reply
):
    place = tmp_path_factory.mktemp("place")
    environment = {
        **env,
        b"CNI_COMMAND": command,
        b"FAST_AGENT_SOCKET": os.fsencode(place / "s"),
        b"FAST_STATE_DIR": os.fsencode(place / "state"),
        b"FAST_CNI_TIMEOUT_SECONDS": b"5",
        b"ASAN_OPTIONS": b"exitcode=99:detect_leaks=0",
    }

    def call():
        return subprocess.run(
            [sanitized], env=environment, input=stdin, capture_output=True, timeout=30, check=False
        )

    if reply is None:
        done, served = call(), None
    else:
        with OneReply(place / "s", reply) as served:
            done = call()
    assert b"Sanitizer" not in done.stderr, done.stderr.decode()
    assert b"runtime error" not in done.stderr, done.stderr.decode()
    whole = reply is not None and len(reply) >= 8 and struct.unpack_from("<I", reply, 4)[0] <= len(reply) - 8
    if served is not None and served.request and whole:
        assert done.returncode == reply[0]
        assert done.stdout == reply[8 : 8 + struct.unpack_from("<I", reply, 4)[0]]
        return
    waiting = list(Tombstones(place / "state" / "tombstones").waiting())
    if command == b"DEL" and done.returncode == 0:
        (key,) = waiting
        assert [os.fsencode(part) for part in key] == [env[b"CNI_CONTAINERID"], env[b"CNI_IFNAME"]]
        assert all(part.isascii() or part.encode() for part in key)  # not UTF-8: encode raises
    elif command == b"VERSION":
        assert (done.returncode, "supportedVersions" in json.loads(done.stdout)) == (0, True)
    else:
        assert done.returncode == 1
        assert in_json(done.stdout)
        assert not waiting
