"""The comparisons of the datapath still run, and give every number they promise. What the numbers are is not asked."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "datapath"


def run(script, *arguments):
    command = [sys.executable, str(BENCH / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_comparison_of_networks_measures_each_cell_and_draws_it(tmp_path):
    run("bench.py", "--rounds", "1", "--count", "30", "--megabytes", "2", "--out", str(tmp_path))
    found = json.loads((tmp_path / "datapath.json").read_text())
    measurements = {
        f"{protocol} {percentile}" for protocol in ("UDP", "TCP") for percentile in ("p50", "p99")
    }
    assert {(cell["measurement"], cell["place"]) for cell in found["cells"]} == {
        (measurement, place)
        for measurement in (*measurements, "1 stream", "4 streams")
        for place in ("same node", "across")
    }
    for cell in found["cells"]:
        assert cell["rounds"].keys() == {"bare veth", "bridge", "shortest eBPF", "Fast"}
        assert all(value > 0 for rounds in cell["rounds"].values() for value in rounds)
    assert (tmp_path / "datapath.svg").read_text().count("<rect") > 4 * 12


def test_the_cost_of_each_check_is_timed():
    table = run("cost.py", "--rounds", "1", "--repeat", "1000").splitlines()
    whole = next(line for line in table if line.startswith("all of it"))
    assert all(int(figure) > 0 for figure in whole.removeprefix("all of it").split())
    assert len(table) == 10


def test_the_storm_is_measured_and_every_part_of_it_named():
    lines = run("storm.py", "--rounds", "1", "--repeat", "1000").splitlines()
    assert [line[:40].strip() for line in lines] == [
        "a dropped packet",
        "of it: counting by who and why",
        "of it: events, limited",
        "a forwarded packet",
        "of it: the switch, nobody listens",
        "more if somebody listens",
    ]
    assert all(float(line[40:48]) > 0 for line in (lines[0], lines[3]))
