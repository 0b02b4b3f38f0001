"""Names for addresses: which pod holds each, by the records. A list works without them, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fast.ctl.api_options import resolve_kubeconfig, with_cluster
from fast.errors import FastError

if TYPE_CHECKING:
    from fast.kube import KubeClient

_SECONDS = 2.0
#: Up to here records are read one by one; above, all of the cluster at once.
_ONE_BY_ONE = 16


def find_pod_names(kubeconfig: Path | None, addresses: Iterable[str]) -> dict[str, str]:
    """Give ``namespace/name`` of the pod that holds each address; empty if the API server does not answer in time."""
    from fast.net import parse_address, record_name

    names = {record_name(parse_address(address)): address for address in addresses}
    if not names:
        return {}

    async def work(client: KubeClient) -> dict[str, str]:
        async with asyncio.timeout(_SECONDS):
            return await _read(client, names)

    try:
        return with_cluster(resolve_kubeconfig(kubeconfig), work)
    except (FastError, TimeoutError):
        return {}


async def _read(client: KubeClient, names: dict[str, str]) -> dict[str, str]:
    from fast.api.resources import IPENDPOINTS
    from fast.errors import NotFound

    async def read_one(name: str) -> str:
        try:
            pod = (await client.get(IPENDPOINTS, name)).spec.pod
        except NotFound:
            return ""
        return f"{pod.namespace}/{pod.name}" if pod.name else ""

    if len(names) <= _ONE_BY_ONE:
        found = await asyncio.gather(*map(read_one, names))
        return {address: pod for address, pod in zip(names.values(), found, strict=True) if pod}
    records = (await client.list(IPENDPOINTS)).items
    return {
        names[record.metadata.name]: f"{record.spec.pod.namespace}/{record.spec.pod.name}"
        for record in records
        if record.metadata.name in names and record.spec.pod.name
    }
