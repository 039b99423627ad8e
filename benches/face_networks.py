#!/usr/bin/env python3
"""Times the four face networks through millrace-backend-tract beside onnxruntime, call by call in turn, on one core.

    cargo build --release -p millrace-benches --bin model_times
    taskset -c 1 benches/face_networks.py [--models fixtures/face-models] [--rounds 15] [NETWORK...]

Needs numpy and onnxruntime. Prints medians in milliseconds. `pyramid` is P-Net over all levels of a 512x512 photograph
with a smallest face of 20 pixels, each level at sizes that have no plan of their own; `photo` is what the astronaut
photograph asks of all four: the pyramid, 153 crops for R-Net, 9 for O-Net, one face.
"""
import argparse
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

ROOT = Path(__file__).resolve().parent.parent
LEVELS = [308, 218, 155, 110, 78, 56, 40, 28, 20, 14]
PYRAMID = [(1, 3, side, side) for side in LEVELS]
ROWS = lambda side, *counts: [[(rows, 3, side, side)] for rows in counts]
CASES = {
    "mtcnn_pnet": [[PYRAMID[0]], [PYRAMID[3]], PYRAMID],
    "mtcnn_rnet": ROWS(24, 1, 8, 64, 153, 256),
    "mtcnn_onet": ROWS(48, 1, 8, 9, 32),
    "face_embedding": ROWS(150, 1, 4),
}
PHOTO = [("mtcnn_pnet", PYRAMID), ("mtcnn_rnet", [(153, 3, 24, 24)]), ("mtcnn_onet", [(9, 3, 48, 48)]),
         ("face_embedding", [(1, 3, 150, 150)])]


class Ours:
    def __init__(self, binary, model):
        self.process = subprocess.Popen([binary, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load = float(self.process.stdout.readline()) / 1000

    def run(self, sizes):
        self.process.stdin.write(" ".join(map(str, sizes)) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) / 1000


class Theirs:
    def __init__(self, model):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        start = time.perf_counter()
        self.session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.load = (time.perf_counter() - start) * 1000
        self.inputs = {}

    def run(self, sizes):
        if sizes not in self.inputs:
            self.inputs[sizes] = np.random.default_rng(1).uniform(-1, 1, sizes).astype(np.float32)
        start = time.perf_counter()
        self.session.run(None, {"input": self.inputs[sizes]})
        return (time.perf_counter() - start) * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(CASES))
    parser.add_argument("--models", type=Path, default=ROOT / "fixtures/face-models")
    parser.add_argument("--binary", default=str(ROOT / "target/release/model_times"))
    parser.add_argument("--before", help="another build of the binary, timed in the same turns")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    photo = {}
    print("network          sizes              ours   before      ort  ours/ort")
    for network in arguments.networks or list(CASES):
        model = arguments.models / network / "1/model.onnx"
        sides = {"ours": Ours(arguments.binary, model), "ort": Theirs(model)}
        if arguments.before:
            sides["before"] = Ours(arguments.before, model)
        print_row(network, "(load)", {name: side.load for name, side in sides.items()})
        cases = list(CASES[network])
        for name, sizes in PHOTO:
            if name == network and sizes not in cases:
                cases.append(sizes)
        for sizes in cases:
            times = {name: [] for name in sides}
            for round in range(arguments.rounds + 1):
                for name, side in sides.items():
                    took = sum(side.run(size) for size in sizes)
                    if round:
                        times[name].append(took)
            medians = {name: statistics.median(taken) for name, taken in times.items()}
            label = "pyramid" if len(sizes) > 1 else "x".join(map(str, sizes[0]))
            print_row(network, label, medians)
            if (network, sizes) in PHOTO:
                photo[network] = medians
    if len(photo) == len(PHOTO):
        names = next(iter(photo.values())).keys()
        print_row("photo", "", {name: sum(medians[name] for medians in photo.values()) for name in names})


def print_row(network, label, medians):
    before = f"{medians['before']:8.3f}" if "before" in medians else "       -"
    ratio = medians["ours"] / medians["ort"]
    print(f"{network:16} {label:14} {medians['ours']:8.3f} {before} {medians['ort']:8.3f} {ratio:9.2f}", flush=True)


if __name__ == "__main__":
    main()
