"""Reads what a sweep over three ratios told MLflow, the last of which cannot be reached: python tracked.py FOLDER SERVER

Written for the package mlflow 3.17.2. The sweep ran twice, the second time from the cache.
"""

import json
import sys

from mlflow import MlflowClient

folder, server = sys.argv[1:]
client = MlflowClient(server)
experiment = client.get_experiment_by_name("laptop-diff")
runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
assert sorted(runs) == ["ratio=0.3", "ratio=0.5", "ratio=0.999", "small"], runs.keys()
parent = runs.pop("small")
assert parent.info.status == "FAILED" and "mlflow.parentRunId" not in parent.data.tags, parent
below = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
assert len(below) == 3, below
# The table of branches, as a user would ask for it.
best = client.search_runs(
    [experiment.experiment_id], "params.ratio != '0' and metrics.`result/retrained/clip-score` > -1000",
    order_by=["metrics.`selection/ratio_reached` DESC"])
assert [run.data.params["ratio"] for run in best] == ["0.5", "0.3"], best
for ratio in ["0.3", "0.5"]:
    run = runs[f"ratio={ratio}"]
    assert run.info.status == "FINISHED" and run.info.end_time >= run.info.start_time, run.info
    params = run.data.params
    assert params["selection.ratio"] == params["ratio"] == ratio and params["points.samples"] == "4", params
    with open(f"{folder}/result@ratio={ratio}/metrics.json") as file:
        [student] = [model for model in json.load(file)["models"] if model["model"] == "retrained"]
    for name, found in student["metrics"].items():
        for end, value in [("", found["value"]), (".low", found.get("low")), (".high", found.get("high"))]:
            if value is not None:
                history = client.get_metric_history(run.info.run_id, f"result/retrained/{name}{end}")
                # The last bit may differ after two times through JSON.
                [metric] = history
                assert abs(metric.value - value) <= 1e-12 * abs(value), (name, end, history)
    with open(f"{folder}/retrained@ratio={ratio}/losses.jsonl") as file:
        losses = {line["step"]: line["total"] for line in map(json.loads, file)}
    history = client.get_metric_history(run.info.run_id, "retrained/loss/total")
    assert len(history) == len(losses) == 3, history
    assert all(abs(metric.value - losses[metric.step]) <= 1e-6 * metric.value for metric in history), history
    files = [file.path for file in client.list_artifacts(run.info.run_id, "result")]
    assert files == ["result/metrics.json"], files
failed = runs["ratio=0.999"]
assert failed.info.status == "FAILED", failed.info
assert "stage `selection@ratio=0.999` failed: a ratio of 0.999 asks" in failed.data.tags["laptop-diff.error"], failed.data.tags
assert failed.data.tags["mlflow.note.content"] and failed.data.tags["stage.student"] == "skipped"
files = sorted(file.path for file in client.list_artifacts(parent.info.run_id))
assert [file for file in files if "." in file] == ["pipeline.yaml", "report.html", "run.json"], files
with open(f"{folder}/report.html", "rb") as file, open(
        client.download_artifacts(parent.info.run_id, "report.html"), "rb") as told:
    assert told.read() == file.read()
print("every branch is there once")
