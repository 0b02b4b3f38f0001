"""Layers and the OCI archive made of them. Knows nothing of their content.

Source: https://github.com/opencontainers/image-spec.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_COMPRESSION = 9
_ARCHITECTURE = "amd64"


class Layer:
    """Files by their absolute path in the image; owned by root, at the epoch: the same files give the same bytes."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tarfile.TarInfo, bytes | Path]] = {}

    def add(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """Put a file into the layer; if a path is given, its content is read when the layer is written."""
        info = self._info(path, tarfile.REGTYPE, mode)
        info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
        self._entries[info.name] = (info, content)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link into the layer."""
        info = self._info(path, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self._entries[info.name] = (info, b"")

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Put a directory into the layer. Parent directories of files are added automatically."""
        info = self._info(path, tarfile.DIRTYPE, mode)
        self._entries[info.name] = (info, b"")

    @staticmethod
    def _info(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path.strip("/"))
        info.type, info.mode = kind, mode
        info.uname = info.gname = "root"
        return info

    def tar(self) -> bytes:
        """Return the layer as an uncompressed tar archive."""
        for name in [*self._entries]:
            for parent in Path(name).parents:
                if str(parent) != "." and str(parent) not in self._entries:
                    self.directory(str(parent))
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name in sorted(self._entries):
                info, content = self._entries[name]
                data = content.read_bytes() if isinstance(content, Path) else content
                archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    def files(self, suffix: str) -> list[tuple[str, bytes | Path]]:
        """Return the files whose names end so: absolute path in the image, and content."""
        return [
            (f"/{name}", content)
            for name, (info, content) in self._entries.items()
            if info.isreg() and name.endswith(suffix)
        ]


@dataclass(frozen=True)
class Image:
    """An image: layers from the bottom up, and what runs in it."""

    name: str
    layers: tuple[Layer, ...]
    user: str
    command: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def unpack(image: Image, directory: Path) -> None:
    """Write the image's files into a directory, as a container sees them."""
    directory.mkdir(parents=True, exist_ok=True)
    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(layer.tar())) as archive:
            archive.extractall(directory, filter="tar")


class _Blobs:
    """The blobs of an archive, by digest."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def put(self, media_type: str, content: bytes) -> dict[str, Any]:
        """Store a blob; return its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.contents[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def write_archive(image: Image, path: Path) -> tuple[int, int, str]:
    """Write the image as an OCI archive, atomically.

    Returns:
        Bytes of its layers, uncompressed; bytes of the archive; the manifest's digest.
    """
    blobs = _Blobs()
    tars = [layer.tar() for layer in image.layers]
    kind = "application/vnd.oci.image"
    config = {
        "architecture": _ARCHITECTURE,
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "PYTHONDONTWRITEBYTECODE=1"],
            "Cmd": list(image.command),
            "Labels": dict(image.labels),
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": blobs.put(f"{kind}.config.v1+json", _json(config)),
        "layers": [
            blobs.put(f"{kind}.layer.v1.tar+gzip", gzip.compress(tar, _COMPRESSION, mtime=0)) for tar in tars
        ],
    }
    described = blobs.put(f"{kind}.manifest.v1+json", _json(manifest))
    described["annotations"] = {
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
    }
    archive = Layer()
    archive.add("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    archive.add("index.json", _json({"schemaVersion": 2, "manifests": [described]}))
    for digest, content in blobs.contents.items():
        archive.add(f"blobs/sha256/{digest}", content)
    written = archive.tar()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(written)
    fresh.rename(path)
    return sum(map(len, tars)), len(written), described["digest"]


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
