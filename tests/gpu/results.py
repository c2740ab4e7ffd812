"""What `run.sh` has measured so far: gpu.json and a table, from the steps' lines and logs.

    results.py RESULTS DEVICE        writes gpu.json and table.txt into the folder of results
    results.py --same A B            fails if two run.json have an artefact with different digests

Needs nothing but Python's own library.
"""

import json
import pathlib
import subprocess
import sys


def card():
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def write(results, device):
    steps = []
    for line in (results / "steps.tsv").read_text().splitlines():
        name, limit, seconds, status = line.split("\t")
        output = (results / f"{name}.log").read_text(errors="replace").splitlines()
        steps.append({"name": name, "limit_seconds": float(limit), "seconds": float(seconds), "status": status, "output": output})
    everything = {"format": 1, "device": device, "cards": card(), "steps": steps}
    (results / "gpu.json").write_text(json.dumps(everything, indent=1) + "\n")
    rows = [f"{'step':<10} {'seconds':>8} {'limit':>6}  status"]
    rows += [f"{s['name']:<10} {s['seconds']:>8.1f} {s['limit_seconds']:>6.0f}  {s['status']}" for s in steps]
    rows.append(f"{'all':<10} {sum(s['seconds'] for s in steps):>8.1f}")
    (results / "table.txt").write_text("\n".join(rows) + "\n")


def digests(path):
    stages = json.loads(pathlib.Path(path).read_text())["stages"]
    # An evaluation measures times, which differ from run to run.
    return {s["id"]: s["artefact"] and s["artefact"]["digest"] for s in stages if s["stage"] != "evaluate"}


def same(paths):
    one, other = map(digests, paths)
    different = [stage for stage in one if one[stage] is None or one[stage] != other.get(stage)]
    for stage in different:
        print(f"{stage}: {one[stage]} and {other.get(stage)}")
    print(f"{len(one) - len(different)} of {len(one)} artefacts have the same digest")
    return 1 if different else 0


if sys.argv[1] == "--same":
    sys.exit(same(sys.argv[2:4]))
write(pathlib.Path(sys.argv[1]), sys.argv[2])
