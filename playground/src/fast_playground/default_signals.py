"""Gives a program the signals' default dispositions, however it was started. Standard library only."""

from __future__ import annotations

import signal

#: Python ignores these itself, and subprocess restores them for children.
_OF_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def restore_default_signals() -> None:
    """Unblock every signal, and end what the parent's ``&`` or nohup left ignored: children inherit it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - _OF_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
