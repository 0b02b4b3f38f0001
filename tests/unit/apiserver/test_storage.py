"""The file of the API server's store: who uses it when."""

import asyncio
import threading

from fast_playground.apiserver.storage import Store


class Slow:
    """A database whose commits wait until they may go on, and which knows whether it was closed meanwhile."""

    def __init__(self, database):
        self._database = database
        self.writing, self.go_on = threading.Event(), threading.Event()
        self.seen = []

    def execute(self, command, *arguments):
        if command == "COMMIT":
            self.writing.set()
            assert self.go_on.wait(10)
            self.seen.append("written")
        return self._database.execute(command, *arguments)

    def close(self):
        self.seen.append("closed")
        self._database.close()

    def __getattr__(self, name):
        return getattr(self._database, name)


async def test_the_file_is_closed_only_after_the_write_that_a_cancelled_store_leaves_under_way(tmp_path):
    store = Store(tmp_path / "db")
    slow = store._db = Slow(store._db)
    running = asyncio.create_task(store.run())
    write = asyncio.create_task(
        store.write(lambda transaction: transaction.put("things", "a", {"metadata": {}}))
    )
    assert await asyncio.to_thread(slow.writing.wait, 10)
    for task in (running, write):
        task.cancel()
    await asyncio.gather(running, write, return_exceptions=True)

    closing = asyncio.create_task(asyncio.to_thread(store.close))
    await asyncio.sleep(0.05)
    assert slow.seen == []
    slow.go_on.set()
    await closing
    assert slow.seen == ["written", "closed"]
