"""The settings of an agent: where they come from, what they may be, and how a running agent takes new ones.

Owns no state but the settings. Starts nothing and reads nothing of the cluster.
"""
