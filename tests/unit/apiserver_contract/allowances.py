"""All that may differ from the recorded answers, with the reason. An allowance that nothing needs fails the suite."""

import re
from dataclasses import dataclass

from unit.apiserver_contract.comparing import Difference
from unit.apiserver_contract.replay import Line


@dataclass(frozen=True)
class Allowance:
    """A difference that is none.

    Attributes:
        lines: Which lines (a regular expression for the whole id, as ``05-core:7``).
        path: Where (a regular expression for the whole path).
        reason: Why.
    """

    lines: str
    path: str
    reason: str

    def covers(self, line: Line, difference: Difference) -> bool:
        """Whether it is about this difference."""
        return bool(re.fullmatch(self.lines, line.id) and re.fullmatch(self.path, difference.path))


_NOT_SERVED = (
    "a group or kind that neither Fast nor its users' kubectl need; the README lets built-in groups differ"
)

ALLOWANCES = (
    Allowance(
        r".*",
        r"(.*\.)?managedFields",
        "the README lets them be left out; they are kept for server-side apply only, and compared where they are",
    ),
    Allowance(
        r"05-core:23",
        r"items\[\d\]\.status\.conditions",
        "recorded with a scheduler that the replay does without: with it, pods would be bound to the node",
    ),
    Allowance(
        r"01-discovery:4",
        r"buildDate|compiler|gitCommit|gitVersion|goVersion",
        "it is another program, and says so; major and minor are compared",
    ),
    Allowance(r"01-discovery:5", r".*\.serverAddress", "the address it was called at, which differs"),
    Allowance(
        r"01-discovery:(6|16)",
        r"(groups|items)\[(admissionregistration\.k8s\.io|apiregistration\.k8s\.io|autoscaling|batch"
        r"|certificates\.k8s\.io|discovery\.k8s\.io|events\.k8s\.io|flowcontrol\.apiserver\.k8s\.io"
        r"|networking\.k8s\.io|node\.k8s\.io|policy|resource\.k8s\.io|scheduling\.k8s\.io|storage\.k8s\.io)\]",
        _NOT_SERVED,
    ),
    Allowance(
        r"01-discovery:16",
        r"items\[.*\]\.resources\[(controllerrevisions|daemonsets|tokenreviews|localsubjectaccessreviews"
        r"|subjectaccessreviews|ingress(class)?es|ipaddresses|servicecidrs"
        r"|(mutating|validating)webhookconfigurations|mutatingadmissionpolic(ies|ybindings))\]",
        _NOT_SERVED,
    ),
    Allowance(r"01-discovery:8", r".*\.storageVersionHash", "an opaque hash of kube-apiserver's own storage"),
    Allowance(r"02-create-get-update:13", r"message", "the words of Go's JSON decoder"),
    Allowance(
        r"04-list-watch:(15|20)",
        r"(stream\[0\]\.object\.)?message",
        "tells the newest or oldest version kept, which differs",
    ),
    Allowance(
        r"04-list-watch:24",
        r"stream\[.*",
        "kube-apiserver's watch cache of that kind had not caught up; here there is nothing to catch up with, "
        "and the watch begins with what there is",
    ),
    Allowance(
        r"0[45]-.*",
        r"columnDefinitions\[\d+\]\.description",
        "documentation texts of other people, shown by no client",
    ),
    Allowance(
        r"05-core:16",
        r"rows\[0\]\.object\.metadata\.annotations",
        "of the controller that spreads kubelets' requests in large clusters, which nothing here reads",
    ),
)
