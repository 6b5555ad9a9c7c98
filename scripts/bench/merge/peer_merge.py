#!/usr/bin/env python3
"""What verl's FSDP merger does, without its imports: load every rank, join on the shard dimension, cast to bf16, write one
safetensors file. Prints its seconds, without the imports, and its peak memory in MB as JSON.
usage: peer_merge.py CHECKPOINT OUT      (needs torch, safetensors)"""
import glob
import json
import os
import resource
import sys
import time

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, Shard

source, out = sys.argv[1:3]
begin = time.perf_counter()
paths = glob.glob(os.path.join(source, "model_world_size_*_rank_*.pt"))
paths.sort(key=lambda path: int(path.rsplit("_", 1)[1][:-3]))
ranks = [torch.load(path, map_location="cpu", weights_only=False) for path in paths]
merged = {}
for name in list(ranks[0]):
    parts = [rank.pop(name) for rank in ranks]
    if isinstance(parts[0], DTensor):
        dims = [placement.dim for placement in parts[0].placements if isinstance(placement, Shard)]
        local = [part._local_tensor.bfloat16() for part in parts]
        merged[name] = (torch.cat(local, dims[0]) if dims else local[0]).contiguous()
    else:
        merged[name] = torch.cat([part.bfloat16() for part in parts], 0)
os.makedirs(out, exist_ok=True)
save_file(merged, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
print(json.dumps({"seconds": time.perf_counter() - begin, "peak_rss_mb": peak}))
