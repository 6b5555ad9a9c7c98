#!/usr/bin/env python3
"""A tiny language model with PEFT's LoRA and a module trained as a whole, cut into shards; and whether what was merged gives its logits.
usage: merge_peft.py make DIR | merge_peft.py check DIR FOLDED KEPT_APART      (needs torch, transformers, peft)"""
import json
import os
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from shards import save_shards

WORLD = 2
IDS = torch.tensor([[1, 5, 9, 2, 100, 40, 7, 7], [3, 3, 60, 61, 62, 8, 0, 12]])


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def make(folder):
    torch.manual_seed(5)
    config = Qwen2Config(hidden_size=24, intermediate_size=26, vocab_size=101, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, tie_word_embeddings=False, max_position_embeddings=64, dtype="float32")
    base = Qwen2ForCausalLM(config)
    without = logits_of(base)
    lora = LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.data.normal_(0, 0.1)
    save_shards(folder, model.state_dict(), WORLD)
    with open(os.path.join(folder, "lora_train_meta.json"), "w") as file:
        json.dump({"r": lora.r, "lora_alpha": lora.lora_alpha, "use_rslora": True, "task_type": "CAUSAL_LM"}, file)
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(os.path.join(folder, "huggingface"))
    torch.save({"with": logits_of(model), "without": without}, os.path.join(folder, "logits.bin"))


def check(folder, folded, kept_apart):
    expected = torch.load(os.path.join(folder, "logits.bin"))
    base = AutoModelForCausalLM.from_pretrained(kept_apart)
    found = {"folded": logits_of(AutoModelForCausalLM.from_pretrained(folded)), "base": logits_of(base),
             "adapter": logits_of(PeftModel.from_pretrained(base, os.path.join(kept_apart, "lora_adapter")))}
    wanted = {"folded": "with", "adapter": "with", "base": "without"}
    print(json.dumps({"spread": (expected["with"] - expected["without"]).std().item(),
                      **{name: (expected[wanted[name]] - logits).abs().max().item() for name, logits in found.items()}}))


make(sys.argv[2]) if sys.argv[1] == "make" else check(*sys.argv[2:])
