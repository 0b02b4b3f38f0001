"""Runs on a node: times a plugin's ADD and DEL, exec to exit, and prints the times as JSON. Started by bench.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def call(command: str, job: dict[str, Any], number: int) -> float:
    """Call the plugin once; return the milliseconds that it took."""
    name = f"bench-{number}"
    environment = os.environ | {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"{name}-{job['run']}",
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": os.path.dirname(job["binary"]),
    }
    began = time.perf_counter()
    done = subprocess.run(
        [job["binary"]], input=job["config"], env=environment, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{command} of {job['binary']}: {done.stdout}{done.stderr}")
    return took * 1000


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Call ADD and then DEL for every namespace, as many at once as the job says."""
    numbers = range(job["pods"])
    for number in numbers:
        subprocess.run(["ip", "netns", "add", f"bench-{number}"], check=True)
    try:
        with ThreadPoolExecutor(job["parallel"]) as pool:
            began = time.perf_counter()
            adds = list(pool.map(lambda number: call("ADD", job, number), numbers))
            between = time.perf_counter()
            deletes = list(pool.map(lambda number: call("DEL", job, number), numbers))
            ended = time.perf_counter()
    finally:
        for number in numbers:
            subprocess.run(["ip", "netns", "delete", f"bench-{number}"], check=False)
    pods_a_second = {"ADD": job["pods"] / (between - began), "DEL": job["pods"] / (ended - between)}
    return {"ADD": adds, "DEL": deletes, "pods_a_second": pods_a_second}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
