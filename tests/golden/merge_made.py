#!/usr/bin/env python3
"""Small checkpoints of kinds that need torch itself to be written, each with the tensors that were cut beside it:
DIR/<case>/checkpoint, DIR/<case>/base/config.json, DIR/<case>/expected/model.safetensors.
usage: merge_made.py DIR      (needs torch, transformers, safetensors)"""
import json
import os
import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor
from torch.distributed._shard.sharded_tensor.metadata import ShardedTensorMetadata, TensorProperties
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

ROOT = sys.argv[1]


def folder(case, part):
    path = os.path.join(ROOT, case, part)
    os.makedirs(path, exist_ok=True)
    return path


def write_expected(case, tensors, config):
    save_file({name: t.contiguous() for name, t in tensors.items()}, os.path.join(folder(case, "expected"), "model.safetensors"))
    with open(os.path.join(folder(case, "base"), "config.json"), "w") as file:
        json.dump(config, file)


def language_model(**changes):
    torch.manual_seed(7)
    config = Qwen2Config(**{**dict(hidden_size=24, intermediate_size=42, vocab_size=101, num_hidden_layers=4, num_attention_heads=4,
                                   num_key_value_heads=2, tie_word_embeddings=False, max_position_embeddings=64, dtype="float32",
                                   architectures=["Qwen2ForCausalLM"]), **changes})
    return Qwen2ForCausalLM(config), config.to_dict()


def randomise(model):
    """Biases and norms too, which a new model has as zeros and ones."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.05, generator=generator)


def sharded_tensors(case, dtype, world):
    """FSDP1's SHARDED_STATE_DICT without a device mesh; ranks behind the last row hold no shard."""
    model, config = language_model(num_hidden_layers=1)
    randomise(model)
    whole = {name: t.to(dtype) for name, t in model.state_dict().items()}
    for rank in range(world):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
        state = {}
        for name, t in whole.items():
            rows = -(-t.shape[0] // world)
            places = []
            for r in range(world):
                begin, end = r * rows, min(t.shape[0], (r + 1) * rows)
                if begin < end:
                    places.append(ShardMetadata([begin] + [0] * (t.dim() - 1), [end - begin, *t.shape[1:]], f"rank:{r}/cpu"))
            local = [Shard(t[p.shard_offsets[0]:p.shard_offsets[0] + p.shard_sizes[0]].clone(), p)
                     for p in places if p.placement.rank() == rank]
            properties = TensorProperties(dtype=dtype)
            state[name] = ShardedTensor._init_from_local_shards_and_global_metadata(
                local, ShardedTensorMetadata(places, t.size(), properties))
        torch.save(state, os.path.join(folder(case, "checkpoint"), f"model_world_size_{world}_rank_{rank}.pt"))
        dist.destroy_process_group()
    write_expected(case, whole, config)


def rows_of(t, parts, part):
    return t.chunk(parts, 0)[part].clone()


def columns_of(t, parts, part):
    return t.chunk(parts, 1)[part].clone()


def qkv_of(q, k, v, groups, parts, part):
    """Megatron's order: of each group of heads its queries, its key, its value; a part has whole groups."""
    by_group = [t.reshape(groups, -1, *t.shape[1:]) for t in (q, k, v)]
    fused = torch.cat(by_group, 1)
    return fused.chunk(parts, 0)[part].flatten(0, 1).clone()


def language_layer(hf, p, to, state, groups, tp, t):
    for kind in ("weight", "bias"):
        q, k, v = (hf[f"{p}.self_attn.{n}_proj.{kind}"] for n in "qkv")
        state[f"{to}.self_attention.linear_qkv.{kind}"] = qkv_of(q, k, v, groups, tp, t)
    state[f"{to}.self_attention.linear_proj.weight"] = columns_of(hf[f"{p}.self_attn.o_proj.weight"], tp, t)
    state[f"{to}.self_attention.linear_qkv.layer_norm_weight"] = hf[f"{p}.input_layernorm.weight"].clone()
    state[f"{to}.mlp.linear_fc1.layer_norm_weight"] = hf[f"{p}.post_attention_layernorm.weight"].clone()
    state[f"{to}.mlp.linear_fc1.weight"] = torch.cat([rows_of(hf[f"{p}.mlp.{n}_proj.weight"], tp, t) for n in ("gate", "up")])
    state[f"{to}.mlp.linear_fc2.weight"] = columns_of(hf[f"{p}.mlp.down_proj.weight"], tp, t)
    state[f"{to}.self_attention.linear_proj._extra_state"] = None


def padded(t, rows):
    """Rows of padding that no token has, with values that would show."""
    return torch.cat([t, torch.full((rows - t.shape[0], t.shape[1]), 1e4, dtype=t.dtype)])


def save_megatron(case, name, state):
    torch.save([state], os.path.join(folder(case, f"checkpoint/model/{name}"), "model.pt"))


def megatron_value_head(case):
    model, config = language_model()
    randomise(model)
    hf = model.state_dict()
    del hf["lm_head.weight"]
    hf["score.weight"] = torch.randn(1, 24)
    for pp in range(2):
        for tp in range(2):
            state = {}
            if pp == 0:
                state["embedding.word_embeddings.weight"] = rows_of(padded(hf["model.embed_tokens.weight"], 128), 2, tp)
            for local in range(2):
                language_layer(hf, f"model.layers.{2 * pp + local}", f"decoder.layers.{local}", state, 2, 2, tp)
            if pp == 1:
                state["decoder.final_layernorm.weight"] = hf["model.norm.weight"].clone()
                state["output_layer.weight"] = hf["score.weight"].clone()
            save_megatron(case, f"mp_rank_{tp:02}_{pp:03}", state)
    write_expected(case, hf, config)


def megatron_vision(case):
    torch.manual_seed(11)
    text = dict(hidden_size=24, intermediate_size=42, vocab_size=163, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                max_position_embeddings=64, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 1]})
    vision = dict(depth=2, hidden_size=16, intermediate_size=26, num_heads=2, out_hidden_size=24, patch_size=2, window_size=8,
                  spatial_merge_size=2, temporal_patch_size=2, fullatt_block_indexes=[1])
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, dtype="float32",
                              architectures=["Qwen2_5_VLForConditionalGeneration"])
    model = Qwen2_5_VLForConditionalGeneration(config)
    randomise(model)
    model.save_pretrained(folder(case, "expected"))
    model.config.save_pretrained(folder(case, "base"))
    hf = model.state_dict()
    for t in range(2):
        state = {}
        v = "model.visual"
        state["vision_model.patch_embed.proj.weight"] = hf[f"{v}.patch_embed.proj.weight"].clone()
        for block in range(2):
            p, to = f"{v}.blocks.{block}", f"vision_model.decoder.layers.{block}"
            for kind in ("weight", "bias"):
                state[f"{to}.self_attention.linear_qkv.{kind}"] = qkv_of(*hf[f"{p}.attn.qkv.{kind}"].chunk(3), 2, 2, t)
                state[f"{to}.mlp.linear_fc1.{kind}"] = torch.cat([rows_of(hf[f"{p}.mlp.{n}_proj.{kind}"], 2, t) for n in ("gate", "up")])
            state[f"{to}.self_attention.linear_proj.weight"] = columns_of(hf[f"{p}.attn.proj.weight"], 2, t)
            state[f"{to}.self_attention.linear_proj.bias"] = hf[f"{p}.attn.proj.bias"].clone()
            state[f"{to}.self_attention.linear_qkv.layer_norm_weight"] = hf[f"{p}.norm1.weight"].clone()
            state[f"{to}.mlp.linear_fc1.layer_norm_weight"] = hf[f"{p}.norm2.weight"].clone()
            state[f"{to}.mlp.linear_fc2.weight"] = columns_of(hf[f"{p}.mlp.down_proj.weight"], 2, t)
            state[f"{to}.mlp.linear_fc2.bias"] = hf[f"{p}.mlp.down_proj.bias"].clone()
        state["vision_model.decoder.final_layernorm.weight"] = hf[f"{v}.merger.ln_q.weight"].clone()
        for kind in ("weight", "bias"):
            state[f"vision_model.projection.encoder.linear_fc1.{kind}"] = rows_of(hf[f"{v}.merger.mlp.0.{kind}"], 2, t)
        state["vision_model.projection.encoder.linear_fc2.weight"] = columns_of(hf[f"{v}.merger.mlp.2.weight"], 2, t)
        state["vision_model.projection.encoder.linear_fc2.bias"] = hf[f"{v}.merger.mlp.2.bias"].clone()
        state["language_model.embedding.word_embeddings.weight"] = rows_of(padded(hf["model.language_model.embed_tokens.weight"], 176), 2, t)
        for layer in range(2):
            language_layer(hf, f"model.language_model.layers.{layer}", f"language_model.decoder.layers.{layer}", state, 2, 2, t)
        state["language_model.decoder.final_layernorm.weight"] = hf["model.language_model.norm.weight"].clone()
        state["language_model.output_layer.weight"] = rows_of(padded(hf["lm_head.weight"], 176), 2, t)
        save_megatron(case, f"mp_rank_{t:02}", state)


def lora(case, dtype):
    """PEFT's names, plain tensors of one rank; folded in float64."""
    model, config = language_model(num_hidden_layers=1)
    randomise(model)
    generator = torch.Generator().manual_seed(5)
    state, folded = {}, {}
    for name, t in model.state_dict().items():
        t = t.to(dtype)
        module = name.removesuffix(".weight")
        if not module.endswith(("q_proj", "down_proj")) or name.endswith("bias"):
            state[f"base_model.model.{name}".replace("q_proj.bias", "q_proj.base_layer.bias")] = t
            folded[name] = t
            continue
        a, b = (torch.empty(s).normal_(0, 0.3, generator=generator).to(dtype) for s in ((3, t.shape[1]), (t.shape[0], 3)))
        state[f"base_model.model.{module}.base_layer.weight"] = t
        state[f"base_model.model.{module}.lora_A.default.weight"] = a
        state[f"base_model.model.{module}.lora_B.default.weight"] = b
        folded[name] = t.double() + 7 / 3 * (b.double() @ a.double())
    torch.save(state, os.path.join(folder(case, "checkpoint"), "model_world_size_1_rank_0.pt"))
    with open(os.path.join(folder(case, "checkpoint"), "lora_train_meta.json"), "w") as file:
        json.dump({"r": 3, "lora_alpha": 7, "task_type": "CAUSAL_LM"}, file)
    write_expected(case, {name: t.double() for name, t in folded.items()}, config)


sharded_tensors("sharded-fp32", torch.float32, 2)
sharded_tensors("sharded-bf16-empty", torch.bfloat16, 7)
megatron_value_head("value-head")
megatron_vision("vision")
lora("lora-fp32", torch.float32)
lora("lora-bf16", torch.bfloat16)
