"""Who may act as somebody else, and what of that somebody it may choose."""

import pytest
from multidict import CIMultiDict

from fast_playground.apiserver.access import AccessControl, TokenStore
from fast_playground.apiserver.access.rbac import Policy
from fast_playground.apiserver.api import ApiError

_KEY = "authentication.kubernetes.io/node-name"
_EXTRA = ("Impersonate-Extra-authentication.kubernetes.io%2fnode-name", "n1")


@pytest.fixture
def ask(tmp_path):
    """Gives a function that tells as whom a user counts, who has rights to these resources of others."""
    tokens = TokenStore(tmp_path / "tokens.json")
    token = tokens.ensure_identity("actor")

    def identify(resources, *headers):
        access = AccessControl(tokens)
        rule = {"verbs": ["impersonate"], "apiGroups": ["", "authentication.k8s.io"], "resources": resources}
        subject = {"kind": "User", "name": "actor"}
        binding = {"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [subject]}
        access.policy = Policy({("", "r"): {"rules": [rule]}}, {("", "b"): binding})
        sent = [("Authorization", f"Bearer {token}"), ("Impersonate-User", "jane"), *headers]
        return access.authenticate(CIMultiDict(sent), None)

    return identify


def test_what_a_token_would_say_can_be_chosen_with_the_right_to_it(ask):
    user = ask(["users", f"userextras/{_KEY}"], _EXTRA)
    assert (user.name, dict(user.extra)) == ("jane", {_KEY: ("n1",)})


@pytest.mark.parametrize(
    ("resources", "header", "named"),
    [
        ([], ("X", "y"), 'resource "users" in API group ""'),
        (["users"], ("Impersonate-Group", "devs"), 'resource "groups" in API group ""'),
        (["users"], _EXTRA, f'resource "userextras/{_KEY}" in API group "authentication.k8s.io"'),
    ],
)
def test_each_part_of_an_identity_needs_its_own_right(ask, resources, header, named):
    with pytest.raises(ApiError) as refused:
        ask(resources, header)
    assert refused.value.code == 403
    assert f'User "actor" cannot impersonate {named}' in refused.value.message
