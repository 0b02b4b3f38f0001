"""The Container Network Interface: verbs, results, error codes. Runs inside the agent's process.

Owns the order of an attachment's steps and their roll-back; has no state. It must not
choose addresses (``fast.ipam``), touch the kernel (``fast.datapath``), or serve sockets and keep files
(``fast.agent``).
"""

from fast.cni.cni_errors import CODES, CallError, Code, code_of, error_reply
from fast.cni.dependencies import UnmetConditions
from fast.cni.frames import CniCall, CniReply
from fast.cni.verbs import Verbs, version_reply

__all__ = [
    "CODES",
    "CallError",
    "CniCall",
    "CniReply",
    "Code",
    "UnmetConditions",
    "Verbs",
    "code_of",
    "error_reply",
    "version_reply",
]
