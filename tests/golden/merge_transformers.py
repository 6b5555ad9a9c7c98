#!/usr/bin/env python3
"""A tiny causal language model of transformers, cut into shards; and whether a merged folder gives the same logits.
usage: merge_transformers.py make DIR | merge_transformers.py check DIR MERGED      (needs torch, transformers)"""
import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from shards import save_shards

WORLD = 3
IDS = torch.tensor([[1, 5, 9, 2, 100, 40, 7, 7], [3, 3, 60, 61, 62, 8, 0, 12]])


def logits_of(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def make(folder):
    torch.manual_seed(5)
    config = Qwen2Config(hidden_size=24, intermediate_size=26, vocab_size=101, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, tie_word_embeddings=False, max_position_embeddings=64, dtype="float32")
    model = Qwen2ForCausalLM(config)
    save_shards(folder, model.state_dict(), WORLD)
    with open(os.path.join(folder, "fsdp_config.json"), "w") as file:
        json.dump({"FSDP_version": 2, "world_size": WORLD}, file)
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(os.path.join(folder, "huggingface"))
    torch.save(logits_of(model), os.path.join(folder, "logits.bin"))


def check(folder, merged):
    model, info = AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True)
    expected, found = torch.load(os.path.join(folder, "logits.bin")), logits_of(model)
    print(json.dumps({
        "largest_difference": (expected - found).abs().max().item(), "spread": expected.std().item(),
        "missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"]), "dtype": str(model.dtype),
    }))


make(sys.argv[2]) if sys.argv[1] == "make" else check(*sys.argv[2:])
