"""The server's certificate authority: TLS with the certificates it signs works, and only with those."""

import asyncio
import ssl
import stat

import pytest

from fast_playground.apiserver.access import Authority


async def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict | None:
    """Connect once over loopback; give the client certificate the server saw."""
    seen: asyncio.Future = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("peercert"))
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        await reader.read()
        writer.close()
        return await asyncio.wait_for(seen, 10)


def _client_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.ca_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "172.30.0.1", "kubernetes.default.svc"])
async def test_the_server_certificate_is_valid_for_every_name_it_is_called_by(tmp_path, name):
    authority = Authority(tmp_path)
    assert not await _handshake(authority.server_context(["172.30.0.1"]), _client_context(authority), name)


async def test_the_server_certificate_is_not_valid_for_another_name(tmp_path):
    authority = Authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _handshake(authority.server_context(), _client_context(authority), "elsewhere.example")


async def test_a_client_certificate_carries_user_and_groups(tmp_path):
    authority = Authority(tmp_path / "pki")
    issued = authority.issue_client("jane", ["devs", "ops"])
    (tmp_path / "both.pem").write_bytes(issued.certificate_pem + issued.key_pem)
    client = _client_context(authority)
    client.load_cert_chain(tmp_path / "both.pem")
    subject = (await _handshake(authority.server_context(), client, "localhost"))["subject"]
    assert [field for part in subject for field in part] == [
        ("commonName", "jane"),
        ("organizationName", "devs"),
        ("organizationName", "ops"),
    ]


def test_a_restart_keeps_the_authority_and_the_server_certificate(tmp_path):
    Authority(tmp_path).server_context(["10.0.0.1"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Authority(tmp_path).server_context(["10.0.0.1"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_address_gives_a_new_server_certificate_of_the_same_authority(tmp_path):
    authority = Authority(tmp_path)
    authority.server_context()
    before = (tmp_path / "server.crt").read_bytes(), authority.ca_pem
    authority.server_context(["10.0.0.1"])
    assert (tmp_path / "server.crt").read_bytes() != before[0]
    assert authority.ca_pem == before[1]


def test_private_keys_are_readable_by_their_owner_only(tmp_path):
    Authority(tmp_path).server_context()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.key")}
    assert modes == {"ca.key": 0o600, "server.key": 0o600}
