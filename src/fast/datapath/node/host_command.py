"""Runs a command of the node (nft, iptables). The only place in the datapath that starts a process."""

from __future__ import annotations

import subprocess

from fast.errors import NftablesError

_COMMAND_SECONDS = 30.0


def call(command: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. Its exit status is the caller's to look at.

    Raises:
        NftablesError: It is missing, or still runs after 30 seconds.
    """
    try:
        return subprocess.run(
            [command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftablesError(f"{command} cannot be run: {error}") from error


def run(command: str, *arguments: str, stdin: str | None = None) -> str:
    """Run the command and return what it wrote.

    Raises:
        NftablesError: As :func:`call`, or the exit status is not 0; the message has what the command said.
    """
    result = call(command, *arguments, stdin=stdin)
    if result.returncode:
        raise NftablesError(f"{command} {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout
