"""``fast-ctl completion``, and what the shell completes by asking the cluster: nodes, pools, addresses, pods.

Completing must never disturb: what does not answer within a second completes to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

if TYPE_CHECKING:
    from fast.api.resources import Resource

_SECONDS = 1.0
_VARIABLE = "_FAST_CTL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete fast-ctl: source <(fast-ctl completion bash)."""
    found = get_completion_class(shell)
    assert found is not None, "click has every shell of the choice"
    click.echo(found(ctx.find_root().command, {}, "fast-ctl", _VARIABLE).source())


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_nodes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a Node."""
    from fast.api.resources import NODES

    return _names(NODES, incomplete)


def complete_pools(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a pool."""
    from fast.api.resources import IPSES

    return _names(IPSES, incomplete)


def complete_pods(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a pod's name, or ``namespace/name``."""
    from fast.api.resources import PODS

    namespace, slash, _ = incomplete.partition("/")
    return _names(PODS, incomplete, namespace=namespace if slash else "default", prefixed=bool(slash))


def _names(
    resource: Resource[Any], incomplete: str, *, namespace: str | None = None, prefixed: bool = False
) -> list[CompletionItem]:
    """Complete from the names of a resource's objects; nothing if the API server does not answer in time."""
    from fast.ctl.api_options import with_cluster
    from fast.errors import FastError

    async def work(client: Any) -> list[str]:
        async with asyncio.timeout(_SECONDS):
            return [item.metadata.name for item in (await client.list(resource, namespace)).items]

    try:
        names = with_cluster(None, work)
    except (FastError, TimeoutError):
        return []
    spelled = [f"{namespace}/{name}" if prefixed else name for name in names]
    return [CompletionItem(name) for name in sorted(spelled) if name.startswith(incomplete)]
