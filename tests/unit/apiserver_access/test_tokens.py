"""Bearer tokens: durable, per identity, shared between processes; and the kubeconfigs that carry them."""

import base64
import stat

import yaml

from fast_playground.apiserver.access import TokenStore, write_kubeconfig
from fast_playground.apiserver.api import User


def test_an_identity_keeps_its_token_over_a_restart(tmp_path):
    path = tmp_path / "tokens.json"
    token = TokenStore(path).ensure_identity("admin", ["system:masters"])
    restarted = TokenStore(path)
    assert restarted.ensure_identity("admin", ["system:masters"]) == token
    assert restarted.find_user(token) == User("admin", ("system:masters", "system:authenticated"))


def test_a_running_server_knows_tokens_that_another_process_issued(tmp_path):
    path = tmp_path / "tokens.json"
    server = TokenStore(path)
    assert server.find_user("x") is None
    for node in ("n1", "n2"):
        token = TokenStore(path).ensure_identity(f"system:node:{node}", ["system:nodes"])
        assert server.find_user(token).name == f"system:node:{node}"


def test_changed_groups_count_at_once(tmp_path):
    path = tmp_path / "tokens.json"
    server = TokenStore(path)
    token = server.ensure_identity("jane", ["devs"])
    assert "devs" in server.find_user(token).groups
    assert TokenStore(path).ensure_identity("jane", ["ops"]) == token
    assert server.find_user(token).groups == ("ops", "system:authenticated")


def test_each_node_has_its_own_token_of_a_service_account_which_names_the_node(tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    tokens = [store.ensure_service_account("kube-system", "fast-agent", node=node) for node in ("n1", "n2")]
    assert len(set(tokens)) == 2
    user, other = map(store.find_user, tokens)
    assert (user.name, user.groups) == (other.name, other.groups)
    nodes = [found.extra["authentication.kubernetes.io/node-name"] for found in (user, other)]
    assert nodes == [("n1",), ("n2",)]
    assert user.name == "system:serviceaccount:kube-system:fast-agent"
    assert "system:serviceaccounts:kube-system" in user.groups


def test_the_file_is_readable_by_its_owner_only(tmp_path):
    TokenStore(tmp_path / "tokens.json").ensure_identity("admin")
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600


def test_a_kubeconfig_names_server_authority_and_token(tmp_path):
    path = tmp_path / "deep" / "kubeconfig"
    write_kubeconfig(path, server="https://127.0.0.1:6443", ca_pem=b"CA", user="admin", token="t0ken")
    config = yaml.safe_load(path.read_text())
    assert config["current-context"] == config["contexts"][0]["name"]
    cluster = config["clusters"][0]["cluster"]
    assert cluster == {
        "server": "https://127.0.0.1:6443",
        "certificate-authority-data": base64.b64encode(b"CA").decode(),
    }
    assert config["users"] == [{"name": "admin", "user": {"token": "t0ken"}}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["kubeconfig"]
