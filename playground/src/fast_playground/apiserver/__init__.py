"""The embedded Kubernetes API server: for playgrounds, tests and try-outs. Never a production control plane.

It speaks enough of the Kubernetes API that kubectl, the agent and the controller work on it unchanged, and is as strict
as a real kube-apiserver if they could notice. What it holds lives in one SQLite file.
"""
