"""What the agent shows of the traffic: drops and flows, with the names of the pods they concern.

Owns the one reader of the programs' ring buffer, the last events, and who held which address when. It changes nothing:
packets are judged by the programs, and exact counts are theirs.
"""
