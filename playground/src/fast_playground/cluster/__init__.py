"""A whole cluster on one machine, for trying Fast out and for its end-to-end tests: ``fast-ctl playground``.

A playground is one process tree below one *init* (``init.py``), process 1 of a pid namespace with a mount namespace of
its own; in it run the API server, the controller and, for every node, another init with pid, mount and network
namespace, in which the node's real ``fast-agent`` and the kubelet runner live. So killing one process ends everything,
and with the last process of a namespace its mounts, pins and links are gone as well: there is nothing to leave behind.

Only the state directory (``/run/fast-playground/NAME``) lies on the machine itself; its own network stays untouched.
"""
