"""The rules of address management: pure functions from what is known to a decision. No I/O, no state, no clock.

``claim_request`` reads what a pod asks for. ``claim_rules`` decide about an ADD, ``release_rules`` about a DEL,
``agent_gc_rules`` and ``controller_gc_rules`` about garbage collection, and ``breaker`` how much of that may happen at
once. ``record_states`` says what a record looks like in each state of its life::

    FREE ─create─▶ BOUND ─DEL by its agent, or GC─▶ FREE (cools for releaseDelaySeconds)
                   BOUND ─DEL of a sticky pod─▶ RETAINED (no containerID) ─same sticky key─▶ BOUND

Each decision is carried out by a *single* write with the record's uid and resourceVersion as preconditions, so a
decision about a state that has passed changes nothing.

Below are the races: what would go wrong, and where the guard is. The line that guards against a race names it, and
``tests/unit/ipam/plants.py`` removes each guard, after which the model test must fail.

Claiming:

- ``two-claimants``: two agents choose one address at the same time; create by name, in ``allocator``.
- ``lost-answer``: the API server carries a write out, and its answer gets lost; ``record_writes``, and the GC.
- ``own-write-echo``: the watch shows a time before a write of this process; ``record_view``.
- ``retried-add``: the runtime repeats an ADD, and a second address is taken; ``on_add``.
- ``new-sandbox``: a pod gets a new sandbox, and the record of the old one stays behind; ``on_add``.
- ``overtaken-add``: an ADD that took long takes the address from the pod's newer sandbox; ``on_add``.
- ``recreated-pod``: a new pod of the same name gets the record of the old one; ``admit``, ``on_add``.
- ``reused-container-id``: a sandbox of another node with the same ID is taken for this node's; ``on_add``, ``on_del``.
- ``other-interface``: a call for one interface gets or frees the address of another; ``on_add``, ``on_del``.
- ``terminating-pod``: an ADD comes after the pod was told to stop; ``admit``.
- ``moved-pod``: an ADD is served on a node that the pod is not on; ``admit``.
- ``sticky-still-bound``: a StatefulSet's new pod takes the address of one that still runs; ``on_add``.
- ``sticky-from-afar``: a StatefulSet's pod moves before its new node saw the old record; ``claiming``.
- ``holder-refused``: an ADD is refused the address that its pod holds, as its pool changed since; ``claiming``.
- ``foreign-retained``: an ADD deletes an address kept for its pod, which no agent has the right to; ``claiming``.
- ``lost-record``: a record is lost while its sandbox lives, and its address is given again; ``on_live_sandbox``.
- ``stalled-watch``: a pool counts as exhausted, as the watch does not show what was released; ``allocator``.

Releasing:

- ``late-del``: the DEL of an old sandbox frees the new sandbox's address; ``on_del``.
- ``del-against-takeover``: a DEL is decided before a takeover and written after it; the preconditions.

Garbage collection by the agent:

- ``add-in-flight``: a record is freed while its sandbox is being made; ``on_agent_sweep``.
- ``reused-while-swept``: a repeated ADD reuses a record that the sweep is about to free; ``releasing``.
- ``half-seen-sandbox``: one look at the kernel misses the sandbox; ``on_agent_sweep``.
- ``changed-between-sightings``: two owners, each missed once, count as one missed twice; ``Sighting``.
- ``added-between-sightings``: a sandbox missed once counts as missing since before a repeated ADD; ``releasing``.
- ``rebooted-node``: records of sandboxes that ended with a reboot stay behind; ``on_agent_sweep``.
- ``foreign-node``: an agent frees a record that another node's agent answers for; ``on_agent_sweep``.

Garbage collection by the controller:

- ``partitioned-node``: a pod is gone, and its sandbox still runs on a node out of reach; ``on_controller_sweep``.
- ``stale-pod-list``: a pod that was made after the list was read counts as gone; ``on_controller_sweep``.
- ``node-object-deleted``: a Node is deleted and registered again while its pods run; ``on_controller_sweep``.
- ``mass-disappearance``: an empty answer of the API server frees everybody's address; ``breaker``.
- ``retained-and-rebound``: a retained address is freed while its pod comes back; ``on_retained``.
- ``sticky-twice``: two addresses are kept for one ordinal; ``on_retained``.
"""
