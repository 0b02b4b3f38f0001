"""Commands that show the traffic and say why it does not flow: ``drops``, ``flows``, ``check``, ``trace``, ``status``.

They ask the node's agent, which alone reads the programs' events, and change nothing.
"""
