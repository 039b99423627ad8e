#!/usr/bin/env python3
"""The network of `candle_times speed` in PyTorch: BERT-base with random weights in FP16, rows of 128 tokens.

    torch_times.py [--device cuda] [--small] [--compile] [--json FILE]

Needs torch alone. The network is written out here in the modules that PyTorch has for it, with its fused attention, in
inference mode, so that it is what a careful user of PyTorch would run; `--compile` measures it through torch.compile, too.
As in `candle_times`, a run begins with token ids in the machine's memory and ends with one vector for each row there.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

TOKENS = 128
BASE = dict(layers=12, width=768, heads=12, inner=3072, vocabulary=30522)
SMALL = dict(layers=2, width=128, heads=2, inner=512, vocabulary=1000)


class Layer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.first_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.second_norm = nn.LayerNorm(width)

    def forward(self, x):
        rows, tokens, width = x.shape
        q, k, v = self.qkv(x).view(rows, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, tokens, width)
        x = self.first_norm(x + self.output(mixed))
        return self.second_norm(x + self.outer(functional.gelu(self.inner(x))))


class Bert(nn.Module):
    def __init__(self, layers, width, heads, inner, vocabulary):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(512, width)
        self.kinds = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.positions(places) + self.kinds(torch.zeros_like(ids)))
        for layer in self.layers:
            x = layer(x)
        return x.mean(dim=1).float()


def operations(size, rows):
    weights = 2 * rows * TOKENS * (4 * size["width"] ** 2 + 2 * size["width"] * size["inner"])
    attention = 4 * rows * TOKENS * TOKENS * size["width"]
    return size["layers"] * (weights + attention)


def median_seconds(work, budget):
    for _ in range(5):
        work()
    times, began = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - began < budget and len(times) < 2000):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    size = SMALL if arguments.small else BASE
    torch.manual_seed(1)
    bert = Bert(**size).half().to(arguments.device).eval()
    ways = [("eager", bert)]
    if arguments.compile:
        ways.append(("compiled", torch.compile(bert)))
    print(f"\n## PyTorch {torch.__version__}\n\n| way | rows | ms | rows per second | TFLOP/s |\n|---|---|---|---|---|")
    found = []
    with torch.inference_mode():
        for way, network in ways:
            rows = 1
            while rows <= (4 if arguments.small else 64):
                ids = torch.randint(1, size["vocabulary"], (rows, TOKENS))
                if arguments.device != "cpu":
                    ids = ids.pin_memory()
                run = lambda: network(ids.to(arguments.device, non_blocking=True)).cpu()
                seconds = median_seconds(run, 0.05 if arguments.small else 0.7)
                speed = operations(size, rows) / seconds / 1e12
                found.append(dict(way=way, rows=rows, ms=seconds * 1e3, rows_per_second=rows / seconds, tflops=speed))
                print(f"| {way} | {rows} | {seconds * 1e3:.3f} | {rows / seconds:.0f} | {speed:.3g} |", flush=True)
                rows *= 2
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "speed": found}, file, indent=1)


if __name__ == "__main__":
    main()
