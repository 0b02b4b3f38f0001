"""The verbs on objects: create, read, list, replace, patch, delete, subscribe. Knows no HTTP.

The server's own parts (workload controllers, access, exec) use them in process, on plain dict objects, with the rules,
errors and effects they have over HTTP. A write is one function run inside the store's transaction, so that checks and
effects are one step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fast_playground.apiserver import pod_kind, status, writing
from fast_playground.apiserver.admission_policies import AdmissionPolicies, Attempt
from fast_playground.apiserver.api import Change, Object, Options
from fast_playground.apiserver.apply import apply_patch
from fast_playground.apiserver.deletion import Deletion, delete_in, is_released, read, remove
from fast_playground.apiserver.kinds import CUSTOM_RESOURCE_DEFINITIONS, GVR, NAMESPACES, PODS
from fast_playground.apiserver.metadata import timestamp
from fast_playground.apiserver.pages import list_page
from fast_playground.apiserver.patches import json_patch, merge_patch, strategic_merge
from fast_playground.apiserver.registry import Kind, Registry
from fast_playground.apiserver.scale import scale_of, set_scale
from fast_playground.apiserver.selectors import Selector, parse_selector
from fast_playground.apiserver.storage import Record, Store, Transaction
from fast_playground.apiserver.strategy import established
from fast_playground.apiserver.watch import Follower

#: Computes an object from its present state.
Edit = Callable[[Transaction, Object], Object]
#: (A method is called ``list``.)
Objects = list[Object]


class Verbs:
    """The verbs. Each raises ApiError where HTTP would answer with a failure; writes return once durable.

    Args:
        store: Where objects live; its ``run`` must be running for writes.
        registry: Which kinds there are.
    """

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store = store
        self.registry = registry
        self._definitions = self.kind(CUSTOM_RESOURCE_DEFINITIONS)
        self._policies = AdmissionPolicies(lambda gvr: store.bucket(self.kind(gvr).storage).records, registry)
        for record in store.bucket(self._definitions.storage).records.values():
            registry.install(record.decode())

    def kind(self, gvr: GVR) -> Kind:
        """The kind of a resource. Raises ApiError: 404."""
        if (kind := self.registry.find(gvr)) is None:
            raise status.not_served()
        return kind

    def find_record(self, kind: Kind, name: str, namespace: str | None) -> Record:
        """Read one object's committed state. Raises ApiError: 404."""
        record = self.store.bucket(kind.storage).records.get(kind.key(name, namespace))
        if record is None:
            raise status.not_found(kind.gvr, name)
        return record

    def exists(self, kind: Kind, name: str, namespace: str | None) -> bool:
        """Whether there is an object of that name."""
        return kind.key(name, namespace) in self.store.bucket(kind.storage).records

    def scale(self, kind: Kind, record: Record) -> Object:
        """Show an object's scale."""
        return scale_of(kind, kind.whole(record.decode()))

    async def get(self, gvr: GVR, name: str, namespace: str | None = None) -> Object:
        """Read one object."""
        kind = self.kind(gvr)
        return kind.whole(self.find_record(kind, name, namespace).decode())

    async def list(
        self, gvr: GVR, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]:
        """Read the objects of a namespace (None: of all)."""
        kind = self.kind(gvr)
        selector = parse_selector(label_selector, field_selector, kind.selects)
        page = list_page(self.store, kind, namespace, selector)
        return [kind.whole(record.decode()) for record in page.records]

    async def create(
        self, gvr: GVR, obj: Object, namespace: str | None = None, *, options: Options | None = None
    ) -> Object:
        """Store a new object; its name may come from ``generateName``."""
        return await self._create(self.kind(gvr), obj, namespace, options or Options(), [])

    async def _create(
        self, kind: Kind, obj: Object, namespace: str | None, options: Options, managed: Objects
    ) -> Object:
        obj, gvr = dict(obj), kind.gvr
        namespace = namespace or (obj.get("metadata") or {}).get("namespace") if kind.namespaced else None
        writing.make_new(kind, obj, namespace, options, managed)

        def change(tx: Transaction) -> Object:
            if kind.custom and tx.get(self._definitions.storage, f"{gvr.resource}.{gvr.group}") is None:
                raise status.not_served()  # its definition was deleted while this waited
            if namespace is not None:
                self._check_namespace(tx, kind, namespace, obj["metadata"].get("name", ""))
            key = kind.key(obj["metadata"].get("name", ""), namespace)
            if tx.get(kind.storage, key) is not None:
                raise status.already_exists(kind.gvr, obj["metadata"]["name"])
            writing.admit(tx, kind, obj, self.registry)
            name = obj["metadata"]["name"]
            new = kind.whole(obj)
            self._policies.check(Attempt(kind, "CREATE", name, namespace, "", new, None, options))
            tx.put(kind.storage, key, obj)
            if options.dry_run:
                del obj["metadata"]["resourceVersion"]
            return obj

        made = await self.store.write(change, dry_run=options.dry_run)
        if kind.gvr == CUSTOM_RESOURCE_DEFINITIONS and not options.dry_run:
            await self._establish(kind, made["metadata"]["name"])
        return kind.whole(made)

    def _check_namespace(self, tx: Transaction, kind: Kind, namespace: str, name: str) -> None:
        record = tx.get(self.kind(NAMESPACES).storage, namespace)
        if record is None:
            raise status.not_found(NAMESPACES, namespace)
        if record.decode()["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = status.forbidden(kind.gvr, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
            }
            assert error.details is not None
            error.details["causes"] = [cause | {"field": "metadata.namespace"}]
            raise error

    async def _establish(self, kind: Kind, name: str) -> None:
        """Begin to serve what a CustomResourceDefinition defines, and say so in its status."""

        def change(tx: Transaction) -> None:
            if record := tx.get(kind.storage, name):
                crd = record.decode()
                crd["status"] = established(crd, timestamp())
                tx.put(kind.storage, name, crd)

        self.registry.install(self.find_record(kind, name, None).decode())
        await self.store.write(change)

    async def update(
        self, gvr: GVR, obj: Object, *, subresource: str = "", options: Options | None = None
    ) -> Object:
        """Replace an object or its subresource; 409 if its resourceVersion is stale.

        Namespace and name come from its metadata.
        """
        meta = obj.get("metadata") if isinstance(obj, dict) else None
        if not isinstance(meta, dict) or not meta.get("name"):
            raise status.bad_request("metadata.name: Required value: name must be provided")
        return await self.replace(
            gvr, meta["name"], meta.get("namespace"), obj, subresource=subresource, options=options
        )

    async def replace(
        self,
        gvr: GVR,
        name: str,
        namespace: str | None,
        obj: Object,
        *,
        subresource: str = "",
        options: Options | None = None,
    ) -> Object:
        """Replace the object of that name; a body with another name is refused."""
        kind = self.kind(gvr)
        return await self._change(
            kind, name, namespace, lambda _tx, _old: obj, subresource, options or Options()
        )

    async def patch(
        self,
        gvr: GVR,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: str = "merge",
        subresource: str = "",
        options: Options | None = None,
    ) -> Object:
        """Change an object by a ``merge``, ``json``, ``strategic`` or ``apply`` patch."""
        options = options or Options()
        served = self.kind(gvr)
        if kind == "apply":
            return await self._apply(served, name, namespace, patch, subresource, options)
        if kind != "json" and not isinstance(patch, dict):
            raise status.bad_request(
                f"json: cannot unmarshal {type(patch).__name__} into Go value of type map"
            )

        def change(_tx: Transaction, old: Object) -> Object:
            if kind == "json":
                return json_patch(old, patch)
            if kind == "strategic":
                made: Object = strategic_merge(old, patch, served.schema)
            else:
                made = merge_patch(old, patch)
            return made

        return await self._change(served, name, namespace, change, subresource, options)

    async def _apply(
        self, kind: Kind, name: str, namespace: str | None, wanted: Any, subresource: str, options: Options
    ) -> Object:
        writing.check_type(kind, wanted)
        wanted["metadata"] = {**(wanted.get("metadata") or {}), "name": name}
        if wanted["metadata"].pop("managedFields", None):
            raise status.bad_request("metadata.managedFields must be nil")

        def merged(live: Object) -> Object:
            return apply_patch(live, wanted, kind.schema, options.manager, subresource, force=options.force)

        if not self.exists(kind, name, namespace) and not subresource:
            new = merged({})
            managed = new["metadata"].pop("managedFields", [])
            return await self._create(kind, new, namespace, options, managed)
        return await self._change(
            kind, name, namespace, lambda _tx, old: merged(old), subresource, options, applied=True
        )

    async def _change(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        change: Edit,
        subresource: str,
        options: Options,
        *,
        applied: bool = False,
    ) -> Object:
        key = kind.key(name, namespace)

        def run(tx: Transaction) -> Object:
            old, scale = kind.whole(read(tx, kind, key)), subresource == "scale"
            if scale:
                new = set_scale(kind, old, change(tx, scale_of(kind, old)))
            else:
                new = change(tx, kind.whole(read(tx, kind, key)))
            part = "" if scale else subresource
            new = writing.make_replacement(kind, old, new, part, options, applied=applied)
            judged = (scale_of(kind, new), scale_of(kind, old)) if scale else (new, old)
            self._policies.check(Attempt(kind, "UPDATE", name, namespace, subresource, *judged, options))
            if new != old:
                if is_released(new):
                    remove(tx, kind, self.registry, key, new)
                else:
                    tx.put(kind.storage, key, new)
            return scale_of(kind, new) if scale else kind.whole(new)

        made = await self.store.write(run, dry_run=options.dry_run)
        self._serve_as_defined(kind, [made])
        return made

    async def bind(self, name: str, namespace: str, binding: Object, options: Options) -> Object:
        """Put a pod on a node: the ``binding`` subresource. Returns a Status of success."""
        kind = self.kind(PODS)
        key = kind.key(name, namespace)

        def run(tx: Transaction) -> None:
            pod = read(tx, kind, key)
            pod_kind.bind(pod, binding)
            self._policies.check(Attempt(kind, "CREATE", name, namespace, "binding", binding, None, options))
            tx.put(kind.storage, key, pod)

        await self.store.write(run, dry_run=options.dry_run)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    async def delete(
        self,
        gvr: GVR,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
        preconditions: Mapping[str, str] | None = None,
    ) -> Object:
        """Delete an object, or mark it if finalizers or grace hold it; for arguments and result see ``remove``."""
        asked = Deletion(grace_period_seconds, propagation, dict(preconditions or {}))
        return await self.remove(self.kind(gvr), name, namespace, asked, Options())

    async def remove(
        self, kind: Kind, name: str, namespace: str | None, asked: Deletion, options: Options
    ) -> Object:
        """Delete an object as asked.

        Returns:
            The object if it still exists or the kind answers so (pods), else a Status of success.
        """

        def run(tx: Transaction) -> tuple[Object, bool]:
            return delete_in(
                tx, kind, self.registry, kind.key(name, namespace), asked, self._judge(kind, options)
            )

        obj, gone = await self.store.write(run, dry_run=options.dry_run)
        self._serve_as_defined(kind, [obj])
        if not gone or kind.returns_deleted:
            return kind.whole(obj)
        details = status.details(kind.gvr, name) | {"uid": obj["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _judge(self, kind: Kind, options: Options) -> Callable[[Object], None]:
        """Make a function that refuses a deletion if an admission policy refuses it."""

        def check(old: Object) -> None:
            name, place = old["metadata"]["name"], old["metadata"].get("namespace")
            self._policies.check(Attempt(kind, "DELETE", name, place, "", None, kind.whole(old), options))

        return check

    def _serve_as_defined(self, kind: Kind, written: Objects) -> None:
        """Serve the kinds of written definitions. For deleted definitions, stop serving and end the watches."""
        if kind.gvr != CUSTOM_RESOURCE_DEFINITIONS:
            return
        for crd in written:
            if record := self.store.bucket(kind.storage).records.get(crd["metadata"]["name"]):
                self.registry.install(record.decode())
            else:
                self.registry.remove(crd)
                self.store.retire(f"{crd['spec']['group']}/{crd['spec']['names']['plural']}")

    async def delete_collection(
        self, gvr: GVR, namespace: str | None, selector: Selector, deletion: Deletion, options: Options
    ) -> Objects:
        """Delete the objects that a selector matches; returns them as they were."""
        kind = self.kind(gvr)

        check = self._judge(kind, options)

        def run(tx: Transaction) -> Objects:
            found = []
            for key in sorted(tx.keys(kind.storage, f"{namespace}/" if namespace else "")):
                record = tx.get(kind.storage, key)
                if record is not None and (not selector or selector.matches(record.decode())):
                    found.append(kind.whole(record.decode()))
                    delete_in(tx, kind, self.registry, key, deletion, check)
            return found

        found = await self.store.write(run, dry_run=options.dry_run)
        self._serve_as_defined(kind, found)
        return found

    async def subscribe(self, *gvrs: GVR) -> AsyncIterator[Change]:
        """Follow resources: every object that exists as ADDED, then each change in order.

        It ends if one of them is no longer served (or the server stops). The store's log is its only buffer.

        Raises:
            ApiError: 404, or 410 once the receiver is so late that changes are no longer kept: subscribe again.
        """
        followed = [(kind, self.store.bucket(kind.storage)) for kind in map(self.kind, gvrs)]
        version = self.store.version
        follower = Follower(bucket.log for _, bucket in followed)
        try:
            for kind, record in [(kind, r) for kind, bucket in followed for r in bucket.records.values()]:
                yield "ADDED", kind.gvr, kind.whole(record.decode())
            while True:
                news = [(event, kind) for kind, bucket in followed for event in bucket.log.since(version)]
                version = self.store.version
                for event, kind in sorted(news, key=lambda item: item[0].record.version):
                    yield event.type, kind.gvr, kind.whole(event.record.decode())
                if any(bucket.log.closed for _, bucket in followed):
                    return
                if version == self.store.version:
                    await follower.moved()
        finally:
            follower.close()
