"""Makes events.tfevents with the package tensorboard 2.21.0: python tests/golden_distill/events.py

Its own protocol buffers and its own record writer, so that our bytes are compared with those that TensorBoard reads.
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

image = Summary.Image(height=32, width=64, colorspace=3, encoded_image_string=b"not really a PNG")
start = SessionStartInfo(start_time_secs=1004.0)
start.hparams["criterion"].string_value = "magnitude"
start.hparams["ratio"].number_value = 0.3
content = HParamsPluginData(session_start_info=start).SerializeToString(deterministic=True)
metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=content))
events = [
    Event(wall_time=1000.5, step=0, file_version="brain.Event:2"),
    Event(wall_time=1001.0, step=300, session_log=SessionLog(status=SessionLog.START)),
    Event(wall_time=1002.0, step=300, summary=Summary(value=[
        Summary.Value(tag="loss/total", simple_value=0.25),
        Summary.Value(tag="learning rate", simple_value=5e-4),
    ])),
    Event(wall_time=1003.0, step=301, summary=Summary(value=[Summary.Value(tag="validation/0", image=image)])),
    Event(wall_time=1004.0, step=0, summary=Summary(value=[
        Summary.Value(tag="_hparams_/session_start_info", metadata=metadata),
    ])),
]
with open(Path(__file__).parent / "events.tfevents", "wb") as file:
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
