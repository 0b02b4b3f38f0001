"""Telling systemd."""

import socket

import pytest

from fast.agent.app.systemd import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_reaches_the_supervisors_socket(tmp_path, monkeypatch, abstract):
    path = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(f"\0{path}" if abstract else path)
        supervisor.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if abstract else path)
        notify("READY=1")
        assert supervisor.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_a_supervisor_that_is_not_there_hears_nothing(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
