"""Train a tiny tagger, alone or as one of several processes, and save what was trained: the double of a real launch."""

from __future__ import annotations

import sys

import torch
from accelerate import PartialState

from lightft import LoRATrainer, ModelLoader
from lightft.contracts.tiny_models import LABELS, examples

base, out = sys.argv[1:]
task = "token-classification"
model, tokenizer = ModelLoader(base, task=task, labels=LABELS[task], dtype="float32").load_model()
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
trainer = LoRATrainer(model, tokenizer, epochs=2, batch_size=3, learning_rate=1e-2, progress=False)
trained = trainer.train(examples(task), lora_dropout=0.0)
if PartialState().is_main_process:
    torch.save({name: value for name, value in trained.named_parameters() if value.requires_grad}, out)
