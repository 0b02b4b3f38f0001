"""``make image``: builds Fast's container image as an OCI archive, without a registry, a daemon or the network.

Beside it goes its bill of materials (CycloneDX), named as the archive with ``.cdx.json``.

The same content as the Dockerfile's, from what `make setup` put on this machine: files of Debian packages, the pinned
distributions of .venv, and Fast's wheel. The same inputs give the same bytes.
"""

import argparse
import time
from pathlib import Path

from archive import Image, unpack, write_archive
from debian import base_layer, closure
from python import add_byte_code, dependencies_layer, fast_layer
from sbom import sbom

from fast import __version__

ROOT = Path(__file__).resolve().parents[2]
#: Debian packages that the programs need: an interpreter, libbpf, and the commands for packet filters.
PACKAGES = ("python3", "libbpf1", "nftables", "iptables")
UID = 65532
MIB = 1 << 20


def main() -> None:
    """Build the archive and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "fast-image.tar")
    parser.add_argument(
        "--list-packages", action="store_true", help="print the Debian packages inside, and exit"
    )
    parser.add_argument(
        "--unpack",
        type=Path,
        metavar="DIRECTORY",
        help="write the files into this directory instead (Dockerfile)",
    )
    options = parser.parse_args()
    packages = closure(PACKAGES)
    if options.list_packages:
        print("\n".join(packages))
        return
    started = time.monotonic()
    image = Image(
        name=f"docker.io/library/fast:{__version__}",
        layers=tuple(
            map(add_byte_code, (base_layer(packages, UID), dependencies_layer(ROOT), fast_layer(ROOT)))
        ),
        user=str(UID),
        command=("fast-agent",),
        labels={"org.opencontainers.image.title": "fast", "org.opencontainers.image.version": __version__},
    )
    if options.unpack:
        unpack(image, options.unpack)
        return
    unpacked, packed, digest = write_archive(image, options.output)
    options.output.with_suffix(".cdx.json").write_text(sbom(ROOT, packages, digest))
    print(
        f"{options.output}: {image.name}, {packed / MIB:.1f} MiB, {unpacked / MIB:.1f} MiB unpacked, "
        f"{len(packages)} Debian packages, in {time.monotonic() - started:.1f} s"
    )


if __name__ == "__main__":
    main()
