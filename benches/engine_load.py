#!/usr/bin/env python3
"""Throughput of the server with its onnxruntime engine, beside the same sessions driven in a bare loop.

  benches/engine_load.py --library libonnxruntime.so MODEL.onnx… [--rounds 10] [--seconds 1] [--callers 4 8] [--json OUT]

Needs wrk. Each round measures, one right after the other: the bare loop (`onnxruntime_times loop`: a session of one thread on each
of as many threads as there are cores, inputs made once), then the server, asked in the Open Inference Protocol's binary form
over loopback by so many callers, each of which waits for its answer; printed are medians of the rounds, and the middle half of
the ratios. Server and client share the cores that this process may use (`taskset` makes them fewer) with nobody else, so the client's
own CPU time (wrk's, from the system's accounts) is taken from the cores that the server could have had:

  ratio = server's rate / (bare rate * (1 - client's CPU seconds / (cores * seconds)))

The plain ratio, with the client's share not taken off, is printed beside it, and the ratio of processor time: what one run
costs the bare loop, to what one answer costs the server with all that it does around a run. On a machine that others use as
well, that one is steadier. wrk does not count what is under way when its time is over, about one
run in all: give slow models enough seconds. Compare only figures of one run.
"""

import argparse
import json
import os
import re
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Those that this process, and what it starts, may run on.
CORES = len(os.sched_getaffinity(0))
SIZES = {"FP32": 4, "INT64": 8}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
        return answer.status, answer.read()


def ask(metadata):
    """A request of one row: the JSON head and the tensors' bytes behind it."""
    inputs, data = [], b""
    for spec in metadata["inputs"]:
        shape = [1 if axis == 0 else 128 if size < 0 else size for axis, size in enumerate(spec["shape"])]
        count = 1
        for size in shape:
            count *= size
        if spec["datatype"] == "FP32":
            values = struct.pack(f"<{count}f", *((index * 37 % 255) / 255 - 0.5 for index in range(count)))
        else:
            values = struct.pack(f"<{count}q", *([1] * count))
        inputs.append(
            {
                "name": spec["name"],
                "datatype": spec["datatype"],
                "shape": shape,
                "parameters": {"binary_data_size": len(values)},
            }
        )
        data += values
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + data, len(head)


def serve(binary, folder, port, library):
    environment = dict(os.environ, ORT_DYLIB_PATH=library)
    command = [binary, "serve", folder, "--listen", f"127.0.0.1:{port}", "--admin", "off", "--ready", "all", "--no-watch"]
    log = open(os.path.join(folder, "..", "log"), "w")
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if get(port, "/v2/health/ready")[0] == 200:
                return process
        except OSError:
            time.sleep(0.05)  # not there yet, or not ready, which is an answer of 503
    process.kill()
    log.close()
    sys.exit("the server did not become ready: " + open(log.name).read()[-2000:])


def wrk(port, path, script, callers, seconds):
    """Answers per second and the client's CPU seconds per second."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = ["wrk", "-t1", f"-c{callers}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{port}{path}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"the server did not answer well:\n{text}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))
    return rate, spent / took


def cpu_of(process):
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bare:
    """The bare loop, in a process that keeps its sessions."""

    def __init__(self, binary, model, library):
        environment = dict(os.environ, ORT_DYLIB_PATH=library)
        command = [binary, "loop", model, str(CORES)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self.process.stdout.readline()

    def run(self, seconds):
        """Runs per second, and processor seconds of one run."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        rate, spent = self.process.stdout.readline().split()
        return float(rate), float(spent)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(arguments, model, scratch):
    name = os.path.splitext(os.path.basename(model))[0]
    folder = os.path.join(scratch, name, "models")
    version = os.path.join(folder, name, "1")
    os.makedirs(version)
    shutil.copy(model, os.path.join(version, "model.onnx"))
    with open(os.path.join(folder, name, "model.toml"), "w") as config:
        config.write('backend = "onnxruntime"\n')
    port = free_port()
    server = serve(arguments.server, folder, port, arguments.library)
    try:
        metadata = json.loads(get(port, f"/v2/models/{name}")[1])
        body, head = ask(metadata)
        body_file, script = os.path.join(scratch, name, "body"), os.path.join(scratch, name, "ask.lua")
        with open(body_file, "wb") as out:
            out.write(body)
        with open(script, "w") as out:
            out.write(
                f'wrk.method = "POST"\nlocal file = io.open("{body_file}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
                'wrk.headers["Content-Type"] = "application/octet-stream"\n'
                f'wrk.headers["Inference-Header-Content-Length"] = "{head}"\n'
            )
        path = f"/v2/models/{name}/infer"
        loop = Bare(arguments.times, model, arguments.library)
        wrk(port, path, script, max(arguments.callers), 1)
        rounds = {callers: [] for callers in arguments.callers}
        bares = []
        for _ in range(arguments.rounds):
            for callers in arguments.callers:
                # Just before, for machines whose speed changes.
                alone, costs = loop.run(arguments.seconds)
                bares.append(alone)
                spent = cpu_of(server)
                rate, client = wrk(port, path, script, callers, arguments.seconds)
                spent = (cpu_of(server) - spent) / arguments.seconds
                fair = rate / (alone * (1 - client / CORES))
                rounds[callers].append((rate, rate / alone, fair, client, spent, costs * rate / spent))
        loop.close()
    finally:
        server.terminate()
        server.wait()
    print(f"{name}: a request of {len(body)} bytes; bare loop {statistics.median(bares):.2f} runs/s on {CORES} threads")
    result = {"model": name, "bytes": len(body), "bare": bares, "callers": {}}
    for callers, figures in rounds.items():
        rate, plain, fair, client, spent, work = (statistics.median(column) for column in zip(*figures))
        low, _, high = statistics.quantiles((figure[2] for figure in figures), n=4)
        print(
            f"  {callers} callers: {rate:8.2f} answers/s, ratio {fair:.3f} ({low:.3f} to {high:.3f}), "
            f"client not taken off {plain:.3f}; processor time {work:.3f}; "
            f"cores busy: server {spent:.2f}, client {client:.2f}"
        )
        result["callers"][callers] = figures
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--library", default=os.environ.get("ORT_DYLIB_PATH", ""))
    parser.add_argument("--server", default=os.path.join(ROOT, "target", "release", "millrace"))
    parser.add_argument("--times", default=os.path.join(ROOT, "target", "release", "onnxruntime_times"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--callers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if not os.path.isfile(arguments.library):
        parser.error("--library, or ORT_DYLIB_PATH, must name the file of the library")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.models:
            results.append(measure(arguments, model, scratch))
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
