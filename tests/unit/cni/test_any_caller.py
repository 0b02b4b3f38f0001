"""Whatever a caller sends, the verbs answer by the specification: in JSON, and never with error 199 (a bug)."""

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from fast.cni import CniCall, Verbs
from fast.ipam import AttachmentLocks
from unit.cni.test_verbs import CONFIG, ENV, World

WORDS = st.sampled_from(
    (
        *("", "ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "c1", "eth0", "../x", "eth%d", "\\udcff"),
        *(
            "\\x1b[2J",
            "K8S_POD_NAMESPACE=a;K8S_POD_NAME=\\udc80",
            "IP=10.0.0.1",
            "IP=\\udcff",
            "a=b;c",
            "1.1.0",
        ),
    )
) | st.text(st.characters(blacklist_characters="\0"), max_size=8).map(
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(
    (
        *("cniVersion", "name", "type", "mtu", "dns", "ipam", "runtimeConfig", "args", "prevResult"),
        *("cni.dev/valid-attachments", "interfaces", "ips"),
    )
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"]), WORDS
).map(lambda chosen: ENV | {"CNI_COMMAND": "ADD"} | chosen)
CONFIGS = st.dictionaries(KEYS, VALUES, max_size=4).map(
    lambda chosen: json.dumps(CONFIG | chosen).encode("utf-8", "surrogatepass")
) | st.binary(max_size=30)


@settings(max_examples=400, deadline=None)
@given(ENVIRONMENTS, CONFIGS, st.sampled_from(["", "/proc/self/fd/9"]))
def test_whatever_a_caller_sends_is_answered_by_the_specification(env, stdin, passed):
    world = World()
    verbs = Verbs(
        addresses=world,
        datapath=world,
        collector=world,
        tombstones=world,
        readiness=world,
        locks=AttachmentLocks(),
    )
    reply = asyncio.run(verbs.dispatch(CniCall(env, stdin, passed)))
    answer = json.loads(reply.stdout or b"{}")
    if reply.exit_code:
        assert answer["msg"]
        assert answer["code"] != 199, answer
    else:
        assert "code" not in answer
