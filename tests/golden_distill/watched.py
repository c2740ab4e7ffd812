"""Reads what a training of 12 steps wrote for TensorBoard and MLflow: python watched.py FOLDER SERVER

Written for the packages tensorboard 2.21.0 and mlflow 3.17.2. Every step must be there once, although the training was
killed and resumed.
"""

import sys

from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder, server = sys.argv[1:]
events = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0})
events.Reload()
expected = {"loss/total": list(range(12)), "training/learning_rate": list(range(12)), "validation/total": [0, 6, 12]}
for tag, steps in expected.items():
    found = [event.step for event in events.Scalars(tag)]
    assert found == steps, (tag, found)
pictures = [event.step for event in events.Images("validation/000")]
assert pictures == [0, 6, 12], pictures
assert all(event.encoded_image_string.startswith(b"\x89PNG") for event in events.Images("validation/000"))

client = MlflowClient(server)
experiment = client.get_experiment_by_name("laptop-diff")
[run] = client.search_runs([experiment.experiment_id])
assert run.info.run_name == "small" and run.info.status == "FINISHED", run.info
assert run.data.params["retrained.steps"] == "12", run.data.params
for tag, steps in expected.items():
    history = client.get_metric_history(run.info.run_id, f"retrained/{tag}")
    found = [metric.step for metric in history]
    assert sorted(found) == steps, (tag, found)
    ours = {event.step: event.value for event in events.Scalars(tag)}
    for metric in history:
        assert abs(metric.value - ours[metric.step]) <= 1e-6 * abs(metric.value), (tag, metric)
# The names are those that MLflow's pages show in a chart of pictures.
names = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
assert run.data.tags["mlflow.loggedImages"] == "True" and len(names) == 6, names
for step, ours in zip([0, 6, 12], events.Images("validation/000")):
    name = f"images/retrained~validation~000+step+{step}+timestamp+"
    [picture] = [file for file in names if file.startswith(name) and file.endswith(".png")]
    assert picture.removesuffix(".png") + "+compressed.webp" in names, names
    with open(client.download_artifacts(run.info.run_id, picture), "rb") as file:
        assert file.read() == ours.encoded_image_string, picture
print("every step is there once")
