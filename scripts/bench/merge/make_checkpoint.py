#!/usr/bin/env python3
"""Writes a sharded checkpoint of random weights as verl's FSDP checkpoint manager does (torch.save of a state dict of
DTensors, a file a rank), one rank after the other, so that memory holds one rank's part.
usage: make_checkpoint.py --params 400e6 --world 4 --dtype fp32 --out DIR      (needs torch)"""
import argparse
import json
import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def shapes_of(params):
    """A dense Qwen2 of about so many parameters."""
    hidden, inner, vocabulary, heads, kv_heads = 1024, 4096, 32000, 16, 4
    if params > 7e8:
        hidden, inner = 2048, 8192
    if params < 1e8:
        hidden, inner, vocabulary = 512, 2048, 16000
    kv = hidden * kv_heads // heads
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner
    layers = max(1, round((params - 2 * vocabulary * hidden) / layer))
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            shapes[f"{p}self_attn.{name}_proj.weight"] = (rows, hidden)
            shapes[f"{p}self_attn.{name}_proj.bias"] = (rows,)
        shapes[p + "self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[p + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[p + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[p + "mlp.down_proj.weight"] = (hidden, inner)
        shapes[p + "input_layernorm.weight"] = (hidden,)
        shapes[p + "post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (vocabulary, hidden)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": hidden, "intermediate_size": inner,
        "vocab_size": vocabulary, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "tie_word_embeddings": False, "max_position_embeddings": 2048,
    }
    return shapes, config


def write_rank(args, shapes, rank):
    # A process group that talks to nobody: a mesh needs one, the files only its description.
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=args.world)
    mesh = init_device_mesh("cpu", (args.world,), mesh_dim_names=("fsdp",))
    generator = torch.Generator().manual_seed(args.seed + rank)
    state = {}
    for name, shape in shapes.items():
        rows = -(-shape[0] // args.world)
        begin, end = min(shape[0], rank * rows), min(shape[0], (rank + 1) * rows)
        local = torch.empty((end - begin, *shape[1:]), dtype=DTYPES[args.dtype])
        local.normal_(0, 0.02, generator=generator)
        stride = torch.empty(shape, device="meta").stride()
        state[name] = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride)
    torch.save(state, os.path.join(args.out, f"model_world_size_{args.world}_rank_{rank}.pt"))
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", type=float, required=True)
    parser.add_argument("--world", type=int, default=4)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    shapes, config = shapes_of(args.params)
    os.makedirs(os.path.join(args.out, "huggingface"), exist_ok=True)
    for rank in range(args.world):
        write_rank(args, shapes, rank)
    with open(os.path.join(args.out, "fsdp_config.json"), "w") as file:
        json.dump({"FSDP_version": 2, "world_size": args.world}, file)
    with open(os.path.join(args.out, "huggingface", "config.json"), "w") as file:
        json.dump(config, file)
    print(sum(torch.Size(shape).numel() for shape in shapes.values()))


main()
