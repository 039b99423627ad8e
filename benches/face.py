#!/usr/bin/env python3
"""Times the face pipeline beside a reference, photograph by photograph in turn, decoding left out.

    cargo build --release -p millrace-benches --bin face_times
    taskset -c 1 benches/face.py --reference face_ref.py [--rounds 15] [PHOTO...]

Needs numpy, pillow and what the reference needs. The reference is a Python file with a class `FaceRef(folder)` whose
`pipeline(pixels)` takes RGB of HxWx3 and does the whole work; its networks lie beside it, or in --reference-models. Where
`facenet_pytorch` is installed, its detection is timed too, beside ours without recognition.

Run it on one core (taskset), where both sides have one thread. Without photographs, the astronaut of the fixtures is used:
as it is, again and again; and at many sizes, none of which was seen before, once each. --threads N gives our side N threads
and measures only throughput, at 1 and 8 photographs in flight.
"""
import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ["mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet", "face_embedding"]
# Of the astronaut; none of them divides another.
WIDTHS = [331, 353, 379, 397, 419, 433, 457, 479, 499, 521, 547, 571, 593, 613, 641, 673, 701, 733, 769, 809]


class Ours:
    def __init__(self, binary, models, threads=1):
        self.process = subprocess.Popen([binary, models, str(threads)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.answer()

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("our side ended; what it said stands above")
        return {name: micros / 1000 for name, micros in json.loads(line).items()}

    def once(self, file):
        parts = self.ask(f"once {file}")
        networks = sum(parts.get(name, 0) for name in NETWORKS)
        parts["total"] -= parts["decode"]
        parts["around"] = parts["total"] - networks
        parts["rest"] = parts["around"] - parts["image"]
        parts["detection"] = parts["total"] - parts.get("face_embedding", 0)
        return parts


class Reference:
    def __init__(self, script, models):
        spec = importlib.util.spec_from_file_location("reference", script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.pipeline = module.FaceRef(models or Path(script).parent).pipeline

    def once(self, pixels):
        return {"total": timed(lambda: self.pipeline(pixels))}


class Facenet:
    def __init__(self):
        import torch
        from facenet_pytorch import MTCNN
        torch.set_num_threads(1)
        self.detector = MTCNN(keep_all=True, device="cpu")

    def once(self, pixels):
        return {"total": timed(lambda: self.detector.detect(pixels, landmarks=True))}


def timed(work):
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def medians(runs):
    names = {name for run in runs for name in run}
    return {name: statistics.median(run.get(name, 0) for run in runs) for name in names}


def photo(folder, name, picture):
    """As a PNG that is not compressed: what is left of decoding is small, and is subtracted."""
    file = Path(folder) / f"{name}.png"
    picture.save(file, compress_level=0)
    return file, np.asarray(picture)


def in_turn(sides, photos, rounds):
    """Each photograph through each side, `rounds` times, the sides in turn."""
    runs = {name: [] for name in sides}
    for _ in range(rounds):
        for file, pixels in photos:
            for name, side in sides.items():
                runs[name].append(side.once(file if name == "ours" else pixels))
    return runs


def show(label, runs):
    ours = medians(runs["ours"])
    for name, other in runs.items():
        if name == "ours":
            continue
        key = "detection" if name == "facenet" else "total"
        ratios = [mine[key] / its["total"] for mine, its in zip(runs["ours"], other)]
        print(f"{label}: {key} {ours[key]:.1f} ms, {name} {medians(other)['total']:.1f} ms, "
              f"ratio {statistics.median(ratios):.2f} (middle half {quarter(ratios, 1):.2f} to {quarter(ratios, 3):.2f})")
    parts = [f"{name} {ours.get(name, 0):.1f}" for name in NETWORKS]
    print(f"{label}: {', '.join(parts)}; around them {ours['around']:.1f} "
          f"(image work {ours['image']:.1f}, rest {ours['rest']:.1f})", flush=True)


def quarter(values, which):
    return statistics.quantiles(values, n=4)[which - 1] if len(values) > 1 else values[0]


def throughput(ours, file, seconds):
    one = ours.once(file)["total"] / 1000
    for callers in (1, 8):
        rounds = max(2, round(seconds / one / callers))
        runs = [callers * rounds / (ours.ask(f"many {callers} {rounds} {file}")["total"] / 1000) for _ in range(3)]
        print(f"throughput at {callers} in flight: {statistics.median(runs):.1f} photographs per second "
              f"(decoding included; runs {', '.join(f'{run:.1f}' for run in runs)})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--reference", type=Path, help="a Python file with a class FaceRef")
    parser.add_argument("--reference-models", type=Path)
    parser.add_argument("--models", type=Path, default=ROOT / "fixtures/face-models")
    parser.add_argument("--binary", default=str(ROOT / "target/release/face_times"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="measure only throughput, with this many threads")
    arguments = parser.parse_args()
    pictures = [Image.open(path).convert("RGB") for path in arguments.photos or [ROOT / "fixtures/face/astronaut.png"]]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.threads:
            ours = Ours(arguments.binary, arguments.models, arguments.threads)
            file, _ = photo(folder, "photo", pictures[0])
            for _ in range(5):
                ours.once(file)
            return throughput(ours, file, 4)
        sides = {"ours": Ours(arguments.binary, arguments.models)}
        if arguments.reference:
            sides["reference"] = Reference(arguments.reference, arguments.reference_models)
        if importlib.util.find_spec("facenet_pytorch"):
            sides["facenet"] = Facenet()
        photos = [photo(folder, f"photo{index}", picture) for index, picture in enumerate(pictures)]
        # Sizes never seen before come first, after one photograph that wakes both sides up.
        in_turn(sides, photos[:1], 1)
        if not arguments.photos:
            sized = [pictures[0].resize((width, width * 7 // 8 if index % 2 else width), Image.Resampling.LANCZOS)
                     for index, width in enumerate(WIDTHS)]
            unseen = [photo(folder, f"size{picture.width}", picture) for picture in sized]
            show(f"{len(unseen)} sizes, each once", in_turn(sides, unseen, 1))
        in_turn(sides, photos, 4)
        show("again and again", in_turn(sides, photos, arguments.rounds))
        throughput(sides["ours"], photos[0][0], 4)


if __name__ == "__main__":
    main()
