"""Reads which networks Services get addresses from, as far as the API server tells."""

from __future__ import annotations

import structlog

from fast.api.resources import SERVICECIDRS
from fast.errors import InvalidRange, KubeError
from fast.kube import KubeClient
from fast.net import IPNetwork, parse_subnet

log = structlog.get_logger()


async def read_service_networks(client: KubeClient) -> tuple[IPNetwork, ...]:
    """Read the ServiceCIDRs (Kubernetes 1.33 and later); empty if the server has none or refuses, which is logged."""
    texts = []
    try:
        listed = await client.list(SERVICECIDRS)
        texts = [text for item in listed.items for text in item.spec.cidrs]
    except KubeError as error:
        log.info("the networks of Services are not known", reason=str(error))
    return tuple(parse_subnet(text) for text in texts if _is_subnet(text))


def _is_subnet(text: str) -> bool:
    try:
        parse_subnet(text)
    except InvalidRange:
        return False
    return True
