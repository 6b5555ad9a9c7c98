"""Shards of a state dict as verl's FSDP2 workers save them, one file a rank, without processes."""
import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore


def save_shards(folder, state, world):
    for rank in range(world):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
        parts = {}
        for name, tensor in state.items():
            rows = -(-tensor.shape[0] // world)
            local = tensor[min(tensor.shape[0], rank * rows):(rank + 1) * rows].clone()
            parts[name] = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=tensor.shape, stride=tensor.stride())
        torch.save(parts, os.path.join(folder, f"model_world_size_{world}_rank_{rank}.pt"))
        dist.destroy_process_group()
