"""What keeps this node sound: the datapath is brought up and repaired, and problems of the node are found and named.

Owns the loops that do so. What the datapath consists of is known to ``fast.datapath`` only.
"""
