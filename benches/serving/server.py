"""The release binary under load: starts it on a copy of a model, asks it by plans of `millrace-traffic`, reads what it used."""

import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("MILLRACE", os.path.join(ROOT, "target/release/millrace"))
TRAFFIC = os.environ.get("TRAFFIC", os.path.join(ROOT, "target/release/millrace-traffic"))
FREE = 32  # the size of axes that a signature leaves free
TEXT = "The mill race carries the water of the river to the wheel, and no more of it than the wheel can take."
GRPC_CONNECTIONS = 64
STRUCT = {"FP32": "f", "FP64": "d", "INT64": "q", "INT32": "i"}


def varint(number):
    """As protobuf writes it."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, content):
    """A field of protobuf that has a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running server; `settings` are its environment's `MILLRACE_…` keys."""

    def __init__(self, models, settings=None, core="0"):
        self.port, self.admin, self.core = free_port(), free_port(), core
        self.folder = tempfile.mkdtemp(prefix="millrace-serving-")
        repository = os.path.join(self.folder, "models")
        os.mkdir(repository)
        for name, source in models.items():
            # Links that lead out of a repository are refused.
            shutil.copytree(source, os.path.join(repository, name))
        command = [BINARY, "serve", repository, "--no-watch", "--log-level", "error"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        command += ["--state-dir", os.path.join(self.folder, "state")]
        pin = ["taskset", "-c", core] if core else []
        self.begun = time.monotonic()
        environment = {**os.environ, **(settings or {})}
        self.process = subprocess.Popen([*pin, *command], env=environment, stdout=subprocess.DEVNULL)
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def wait_ready(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"the server ended with {self.process.returncode}")
            try:
                if self.get("/v2/health/ready").status == 200:
                    return
            except OSError:
                time.sleep(0.002)
        sys.exit("the server was not ready within 120 s")

    def get(self, path):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def order(self, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", data=b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status

    def runs(self, model):
        """What ran so far: rows of a batch, to how many there were and the seconds they took together."""
        with self.get(f"/v2/models/{model}/stats") as answer:
            rows = json.load(answer)["model_stats"][0]["batch_stats"]
        return {int(row["batch_size"]): (int(row["compute_infer"]["count"]), int(row["compute_infer"]["ns"]) / 1e9) for row in rows}

    def memory_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        return int(lines["VmRSS"].split()[0]) / 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def inputs(self, model):
        """A request to `model`, made from its metadata: of each input its name, datatype, shape and bytes, none where it is text."""
        with self.get(f"/v2/models/{model}") as answer:
            specs = json.load(answer)["inputs"]
        for spec in specs:
            shape = [size if size != -1 else 1 if axis == 0 else FREE for axis, size in enumerate(spec["shape"])]
            count, kind = math.prod(shape), spec["datatype"]
            data = None
            if kind != "BYTES":
                values = [1] * count if kind.startswith("INT") else [(n % 29) / 16 - 0.9 for n in range(count)]
                data = struct.pack(f"<{count}{STRUCT[kind]}", *values)
            yield spec["name"], kind, shape, data

    def body(self, model, content):
        path = os.path.join(self.folder, f"{model}-{len(os.listdir(self.folder))}.body")
        with open(path, "wb") as out:
            out.write(content)
        return path

    def grpc_question(self, model):
        """The same by the Open Inference Protocol over gRPC; field numbers are those of proto/grpc_service.proto."""
        message, raw = field(1, model.encode()), b""
        for name, kind, shape, data in self.inputs(model):
            axes = b"".join(varint(size) for size in shape)
            message += field(5, field(1, name.encode()) + field(2, kind.encode()) + field(3, axes))
            text = TEXT.encode()
            raw += field(7, (struct.pack("<I", len(text)) + text) * math.prod(shape) if data is None else data)
        message += raw
        content = b"\0" + struct.pack(">I", len(message)) + message
        headers = {"content-type": "application/grpc", "te": "trailers"}
        return {"path": "/inference.GRPCInferenceService/ModelInfer", "body": self.body(model, content), "headers": headers, "http2": GRPC_CONNECTIONS}

    def question(self, model, parameters=None):
        """A stream's path, body and headers for one request to `model`."""
        heads, raw = [], b""
        for name, kind, shape, data in self.inputs(model):
            head = {"name": name, "datatype": kind, "shape": shape}
            if data is None:
                head["data"] = [TEXT] * math.prod(shape)
            else:
                head["parameters"] = {"binary_data_size": len(data)}
                raw += data
            heads.append(head)
        wanted = {"binary_data_output": True} if raw else {}
        body = {"inputs": heads, "parameters": {**wanted, **(parameters or {})}}
        text = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        if raw:
            headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(text))}
        return {"path": f"/v2/models/{model}/infer", "body": self.body(model, text + raw), "headers": headers}

    def play(self, pieces, streams, seed=1, core="1", grace=10):
        """Traffic as told: pieces are (name, seconds), streams as the plan's. Gives what came of each stream's pieces by name."""
        plan = {
            "address": f"127.0.0.1:{self.port}",
            "seed": seed,
            "grace_seconds": grace,
            "pieces": [{"name": name, "seconds": seconds} for name, seconds in pieces],
            "streams": streams,
        }
        path = os.path.join(self.folder, "plan.json")
        with open(path, "w") as out:
            json.dump(plan, out)
        pin = ["taskset", "-c", core] if core else []
        text = subprocess.run([*pin, TRAFFIC, path], capture_output=True, text=True, check=True).stdout
        streams = json.loads(text)["streams"]
        return {name: {part["piece"]: part for part in parts} for name, parts in streams.items()}


def since(before, after):
    """The runs of `after` that are not of `before`."""
    counts = {rows: (count - before.get(rows, (0, 0))[0], time - before.get(rows, (0, 0))[1]) for rows, (count, time) in after.items()}
    return {rows: (count, time) for rows, (count, time) in counts.items() if count}


def one_batch(runs):
    """The time of a long run, ms: the mean of the most rows that at least one run of fifty had; and those rows."""
    total = sum(count for count, _ in runs.values())
    rows = max((rows for rows, (count, _) in runs.items() if 50 * count >= total), default=0)
    return runs[rows][1] / runs[rows][0] * 1e3 if rows else 0.0, rows


@contextmanager
def serving(models, settings=None, core="0"):
    server = Server(models, settings, core)
    try:
        yield server
    finally:
        server.stop()


def p99(part):
    """Of all right answers, late ones included; milliseconds."""
    return part["latency_us"]["p99"] / 1e3 if part["latency_us"] else float("nan")


def table(title, columns, rows):
    print(f"\n**{title}**\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:.0f}" for cell in row) + " |")
    sys.stdout.flush()
