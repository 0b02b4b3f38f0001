"""The complete error tree of Fast: what can go wrong, and whether a retry can help.

::

    FastError
    ├── InvalidConfig                 configuration that cannot be used
    ├── IPAMError
    │   ├── InvalidRange              text that is not a range, or a range reversed or outside its subnet
    │   ├── PoolNotFound
    │   ├── PoolNotAllowed            the pool's affinities refuse this pod
    │   ├── PoolExhausted
    │   ├── AddressConflict           the requested address belongs to another attachment
    │   └── PodNotEligible            the pod is gone, on another node, terminating, or recreated
    ├── KubeError(status, reason)
    │   ├── Unauthorized  ├── Forbidden    ├── NotFound   ├── Conflict
    │   ├── Invalid       ├── Expired      ├── Throttled  ├── Unavailable
    │   └── NoCredentials             no usable credentials to send
    ├── DatapathError
    │   ├── NetlinkError  ├── NftablesError
    │   ├── BPFError → VerifierError, MapFull
    │   ├── LayoutMismatch            the pinned map's layout is not this version's
    │   ├── FeatureUnsupported(feature, kernel)
    │   ├── NetnsOfNode               the path of a pod's namespace leads to the node's own
    │   └── NetnsGone
    └── AgentUnavailable

The translation to CNI error codes is one table in ``fast.cni.cni_errors``.
"""

from __future__ import annotations

from typing import ClassVar


class FastError(Exception):
    """Root of every error that Fast raises. ``retryable``: the same call may succeed later."""

    retryable: ClassVar[bool] = False


class InvalidConfig(FastError):
    """Configuration from outside (flags, files, CNI network config, environment) that cannot be used."""


class IPAMError(FastError):
    """Address management refused or failed."""


class InvalidRange(IPAMError):
    """Text that is not an address range, or a range that is reversed, mixed or outside its subnet."""


class PoolNotFound(IPAMError):
    """No Ips of that name exists now."""

    retryable = True


class PoolNotAllowed(IPAMError):
    """The pool's affinities refuse this pod."""


class PoolExhausted(IPAMError):
    """Every address of the requested pools is taken."""

    retryable = True


class AddressConflict(IPAMError):
    """The requested address belongs to another attachment."""

    retryable = True


class PodNotEligible(IPAMError):
    """The pod is gone, on another node, terminating, or has another UID than the runtime asked for."""


class KubeError(FastError):
    """An error answer of the API server, or no answer at all.

    Args:
        message: The Status object's message, or what failed while sending.
        status: HTTP status; 0 if no answer came.
        reason: The Status object's ``reason``, such as ``AlreadyExists``; empty if there is none.
        retry_after_seconds: The server's ``Retry-After``; None if it sent none.
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Unauthorized(KubeError):
    """401: no credentials, or credentials that are no longer valid."""

    retryable = True  # tokens rotate


class Forbidden(KubeError):
    """403: RBAC or admission refuses."""


class NotFound(KubeError):
    """404."""


class Conflict(KubeError):
    """409: the name is taken, or the object changed since it was read."""

    retryable = True

    @property
    def already_exists(self) -> bool:
        """Whether the name was taken (as opposed to a stale resourceVersion or precondition)."""
        return self.reason == "AlreadyExists"


class Invalid(KubeError):
    """400, 422 and similar: the request itself is wrong."""


class Expired(KubeError):
    """410: the resourceVersion is older than what the server keeps. List again."""

    retryable = True


class Throttled(KubeError):
    """429."""

    retryable = True


class Unavailable(KubeError):
    """No connection, a timeout, or 5xx. Whether a write took effect is not known."""

    retryable = True


class NoCredentials(KubeError):
    """The token file or exec plugin gives nothing usable now; nothing was sent."""

    retryable = True  # files get replaced, a plugin's server comes back


class DatapathError(FastError):
    """The kernel state of a pod or node could not be set up, found or removed."""


class NetlinkError(DatapathError):
    """rtnetlink refused.

    Args:
        message: The request, and the kernel's extended acknowledgement.
        errno: The kernel's errno (positive); 0 if none applies.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class NftablesError(DatapathError):
    """nftables refused Fast's table."""


class BPFError(DatapathError):
    """The bpf(2) system call or libbpf refused."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class VerifierError(BPFError):
    """The kernel's verifier refused a program; ``log`` is its output."""

    def __init__(self, message: str, log: str, errno: int = 0) -> None:
        super().__init__(message, errno)
        self.log = log


class MapFull(BPFError):
    """A map has no room for another entry."""


class LayoutMismatch(DatapathError):
    """A pinned map or struct has another layout than this version of Fast expects."""


class FeatureUnsupported(DatapathError):
    """The kernel lacks a feature.

    Args:
        feature: Its usual name, such as ``tcx links``.
        kernel: The version that introduced it, such as ``6.6``.
    """

    def __init__(self, feature: str, kernel: str, detail: str = "") -> None:
        suffix = f": {detail}" if detail else ""
        super().__init__(f"this kernel lacks {feature} (Linux {kernel} has it){suffix}")
        self.feature = feature
        self.kernel = kernel


class NetnsOfNode(DatapathError):
    """The path of a pod's network namespace leads to the node's own."""


class NetnsGone(DatapathError):
    """The network namespace does not exist."""


class AgentUnavailable(FastError):
    """The node's fast-agent does not run, or cannot serve yet."""

    retryable = True
