"""Fast's own small rtnetlink: batches of requests in one system call, dumps, extended-ack errors. IPv4 and IPv6.

No policy lives here: what to make is decided by endpoint.py and tunnel.py.
Own rather than pyroute2 on the pod path because one pod's set-up takes 1.2 ms this way and 17 ms that way, and because
pyroute2 enters a namespace by fork, which costs more the larger the agent has grown.
"""

from fast.datapath.netlink.connection import Netlink
from fast.datapath.netlink.records import Address, Link, Neighbour, Route, Rule
from fast.datapath.netlink.requests import Request

__all__ = ["Address", "Link", "Neighbour", "Netlink", "Request", "Route", "Rule"]
