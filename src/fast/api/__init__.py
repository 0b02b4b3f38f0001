"""The Kubernetes objects Fast reads and writes, as typed structs, with their validation and (de)serialisation.

Pure data: no I/O, no client, no decisions. ``ips``, ``ipendpoint`` and ``fastnode`` are Fast's own types, complete;
``core`` holds *views* of Kubernetes' types with only the fields Fast reads (a view is never sent back by ``update``:
patch instead).
"""
