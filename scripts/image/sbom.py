"""The image's bill of materials, in CycloneDX: each Debian package and each Python distribution that is inside."""

import importlib.metadata
import subprocess
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from python import pinned

from fast import __version__

_FORM = "${Package}\t${Version}\t${Architecture}\t${source:Package}\n"


def sbom(root: Path, packages: Iterable[str], digest: str) -> str:
    """Write the bill of materials as JSON.

    Args:
        root: The source tree, for the pinned requirements.
        packages: The Debian packages inside.
        digest: The image's, ``sha256:…``; the same image gives the same bytes.
    """
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest))
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER, name="fast", version=__version__, purl=_purl("oci", "fast", digest)
    )
    bom.metadata.timestamp = datetime.fromtimestamp(0, UTC)
    inside = [*_debian(packages), *_python(root)]
    bom.components.update(inside)
    bom.register_dependency(bom.metadata.component, inside)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _debian(packages: Iterable[str]) -> Iterable[Component]:
    """Say what is inside of Debian; the licences are in the image, in /usr/share/doc/PACKAGE/copyright."""
    command = ["dpkg-query", "-W", "-f", _FORM, *packages]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        name, version, architecture, source = line.split("\t")
        purl = PackageURL("deb", "debian", name, version, {"arch": architecture, "upstream": source})
        yield Component(type=ComponentType.LIBRARY, name=name, version=version, purl=purl, bom_ref=str(purl))


def _python(root: Path) -> Iterable[Component]:
    licences = LicenseFactory()
    for name, version in (*pinned(root), ("fast", __version__)):
        purl = _purl("pypi", name, version)
        about = importlib.metadata.metadata(name)
        licence = about.get("License-Expression") or about.get("License") or ""
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            purl=purl,
            bom_ref=str(purl),
            licenses=[licences.make_from_string(licence)] if licence else [],
        )


def _purl(kind: str, name: str, version: str) -> PackageURL:
    return PackageURL(kind, None, name, version)
