"""The manifests of deploy/ as documents: kustomize's by kubectl, the chart's by Helm's own library. No assertions."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy" / "helm" / "fast"
BASE = ROOT / "deploy" / "base"
CLEAN = ROOT / "deploy" / "clean"
DOCTOR = ROOT / "deploy" / "doctor"
NAMESPACE = "fast-system"

Documents = dict[str, dict[str, Any]]


def by_name(text: str) -> Documents:
    """Give the documents of a YAML stream by ``Kind/name``."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    named = {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}
    assert len(named) == len(documents), "two documents have the same name"
    return named


@functools.cache
def kustomized(directory: Path = BASE) -> Documents:
    """Give what ``kubectl apply -k`` of the directory would apply."""
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True, check=True)
    return by_name(done.stdout)


def overlaid(root: Path, kustomization: str, **files: str) -> Documents:
    """Give what an overlay beside base and extras would apply.

    Args:
        root: An empty folder.
        kustomization: The overlay's.
        files: Its other files, by name without ``.yaml``.
    """
    for part in ("base", "crds", "extras"):
        shutil.copytree(ROOT / "deploy" / part, root / part)
    (root / "overlay").mkdir()
    for name, text in {"kustomization": kustomization, **files}.items():
        (root / "overlay" / f"{name}.yaml").write_text(text)
    return kustomized(root / "overlay")


def rendered(values: dict[str, Any] | None = None, namespace: str = NAMESPACE) -> Documents:
    """Give what ``helm install`` would install, without the CRDs of ``crds/``."""
    with _quiet():
        chart = helm_python.Chart.load(CHART)
        files = chart.render(values, name="fast", namespace=namespace)
    return by_name("\n---\n".join(files.values()))


def chart_crds() -> Documents:
    """Give the CRDs that ``helm install`` would install first."""
    return by_name("\n---\n".join(path.read_text() for path in sorted((CHART / "crds").iterdir())))


def lint(values: dict[str, Any] | None = None) -> list[str]:
    """Give what ``helm lint --strict`` finds, information left out."""
    with _quiet():
        report = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE)
    found = [message["error"] for message in report["messages"] if message["severity"] > 1]
    return [*found, *report["errors"]]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library, which writes to file descriptor 2, from telling about symbolic links."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
