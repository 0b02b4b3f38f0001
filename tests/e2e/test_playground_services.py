"""Services of a playground: backends in turn, none is refused, and what changes is followed."""

import json

import pytest

#: curl's exit status; it is another one after a time-out.
COULD_NOT_CONNECT = 7
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, type: NodePort, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
"""
SERVER = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: web}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "mkdir /www; echo NAME > /www/index.html; exec busybox httpd -f -p 8080 -h /www"]
"""


@pytest.fixture(scope="module")
def cluster(playground):
    playground.make_pool("default-ips", "10.244.100.0-10.244.100.99")
    for name, node in (("s1", "n1"), ("s2", "n2")):
        text = SERVER.replace("NAME", name).replace("NODE", node)
        playground.kubectl.check("create", "-f", "-", stdin=text.encode())
    playground.make_pod("client", "n1")
    playground.wait_running("s1", "s2", "client")
    playground.kubectl.check("create", "-f", "-", stdin=SERVICE.encode())
    return playground


def get(cluster, pod, address, port=80):
    """What a pod gets from there; None if it gets nothing."""
    url = f"http://{address}:{port}/"
    done = cluster.kubectl("exec", pod, "--", "curl", "-sS", "-m", "2", url)
    return done.stdout.decode().strip() if done.returncode == 0 else None


def address_of(cluster):
    return json.loads(cluster.kubectl.check("get", "service", "web", "-o", "json"))["spec"]["clusterIP"]


def answers(cluster, *who, pod="client"):
    """Whether exactly these answer in a row of requests."""
    address = address_of(cluster)
    return {get(cluster, pod, address) for _ in range(12)} == set(who)


def test_a_pod_reaches_every_ready_backend_by_the_services_address(cluster):
    cluster.until(lambda: answers(cluster, "s1", "s2"), "both backends to answer")


def test_a_backend_reaches_itself_by_its_own_service(cluster):
    cluster.until(lambda: answers(cluster, "s1", "s2", pod="s1"), "both backends to answer one of them")


def test_a_node_port_leads_to_a_backend_from_every_node(cluster):
    for node in ("n1", "n2"):
        address = str(cluster.playground.node(node).address)
        cluster.until(
            lambda address=address: get(cluster, "client", address, 30080) in ("s1", "s2"), "an answer"
        )
    outside = cluster.playground.place("underlay").run("curl", "-sS", "-m", "3", "http://192.168.77.1:30080/")
    assert outside.stdout.strip() in ("s1", "s2"), outside.stderr


def test_a_service_without_backends_refuses_at_once(cluster):
    cluster.kubectl.check("label", "pods", "s1", "s2", "app-")
    address = address_of(cluster)

    def refused():
        done = cluster.kubectl("exec", "client", "--", "curl", "-sS", "-m", "3", f"http://{address}/")
        return done.returncode == COULD_NOT_CONNECT

    cluster.until(refused, "a refusal")
    cluster.kubectl.check("label", "pods", "s2", "app=web")
    cluster.until(lambda: answers(cluster, "s2"), "the other backend alone")


def test_of_a_deleted_service_nothing_stays_on_the_nodes(cluster):
    cluster.kubectl.check("delete", "service", "web")
    for node in ("n1", "n2"):
        place = cluster.playground.node(node)
        cluster.until(
            lambda place=place: "playground_services" not in place.run("nft", "list", "ruleset").stdout,
            "rules to go",
        )
