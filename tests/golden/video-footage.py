"""Sequential decode by PyAV: sha256 of every frame's RGB at its own size, one JSON object a video; decord's bytes at a size, where it is."""
import hashlib
import json
import sys

import av

path, width, height = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
digest = lambda array: hashlib.sha256(array.tobytes()).hexdigest()
with av.open(path) as container:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    frames = [digest(frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
try:
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0), width=width, height=height, num_threads=1)
    resized = [digest(reader[i].asnumpy()) for i in range(0, len(reader), 7)]
except ImportError:
    resized = None
print(json.dumps({"frames": frames, "resized": resized}))
