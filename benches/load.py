#!/usr/bin/env python3
"""Loads the release binary and a bare hyper echo in turn, and prints both side by side.

  benches/load.py [--rounds 3] [--seconds 4] [--loadgen DIR] [--json OUT]

Builds what it needs, serves a copy of fixtures/models on loopback, and stops by itself. The server is pinned to core 0
and the client to core 1, so figures are per core. Throughput comes from `wrk` at 64 connections. Latency at one
connection comes from the `loadgen` crate in DIR (default: $LOADGEN_DIR, else ../shared/bench/loadgen) where it is
there, else from wrk. Compare only figures of one run: machines are noisy, so every round measures everything once.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")


def fraud_body():
    row = [52.3, 0.25, 14, 3.2, 1, 0, 2, 0.4, 730, 0]
    return json.dumps({"instances": [row]})


def digits_body():
    image = [[[((x * y) % 17) / 16 for x in range(8)] for y in range(8)]]
    return json.dumps({"instances": [image]})


TARGETS = [
    ("echo", "/v1/models/fraud:predict", fraud_body()),
    ("fraud", "/v1/models/fraud:predict", fraud_body()),
    ("echo, image body", "/v1/models/digits:predict", digits_body()),
    ("digits", "/v1/models/digits:predict", digits_body()),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def build(loadgen):
    subprocess.run(["cargo", "build", "--release", "--bin", "millrace"], cwd=ROOT, check=True)
    subprocess.run(["cargo", "build", "--release", "-p", "millrace-benches", "--bin", "hyper_echo"], cwd=ROOT, check=True)
    if not loadgen:
        return None
    target = os.path.join(ROOT, "target", "loadgen")
    manifest = os.path.join(loadgen, "Cargo.toml")
    command = ["cargo", "build", "--release", "--manifest-path", manifest, "--target-dir", target, "--bin", "loadgen"]
    subprocess.run(command, check=True)
    return os.path.join(target, "release", "loadgen")


def start(command, port, path, body):
    process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body.encode())
            with urllib.request.urlopen(request, timeout=1) as answer:
                if answer.status == 200:
                    return process
        except OSError:
            time.sleep(0.02)
    process.kill()
    sys.exit(f"{command[0]} did not answer within 30 s")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def wrk(url, script, connections, seconds):
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"errors under load:\n{text}")
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6}
    micros = lambda share: next(float(n) * scale[u] for n, u in re.findall(share + r"%\s+([\d.]+)(us|ms|s)", text))
    return {
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        "requests": int(re.search(r"(\d+) requests in", text).group(1)),
        "p50_us": micros("50"),
        "p99_us": micros("99"),
    }


def one_caller(loadgen, url, body_file, script, seconds):
    if not loadgen:
        return wrk(url, script, 1, seconds)
    command = ["taskset", "-c", "1", loadgen, "--url", url, "--body", body_file, "--conns", "1", "--duration", str(seconds)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if report.get("errors"):
        sys.exit(f"errors under load: {report['errors']}")
    return report


def measure(name, path, body, options, loadgen, folder):
    port = free_port()
    if name.startswith("echo"):
        command = [os.path.join(ROOT, "target/release/hyper_echo"), f"127.0.0.1:{port}"]
    else:
        command = [os.path.join(ROOT, "target/release/millrace"), "serve", os.path.join(folder, "models"), "--no-watch"]
        command += ["--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0"]
    body_file, script = os.path.join(folder, "body.json"), os.path.join(folder, "post.lua")
    with open(body_file, "w") as out:
        out.write(body)
    with open(script, "w") as out:
        out.write(f"wrk.method = 'POST'\nwrk.body = [==[{body}]==]\nwrk.headers['Content-Type'] = 'application/json'\n")
    process = start(command, port, path, body)
    try:
        url = f"http://127.0.0.1:{port}{path}"
        wrk(url, script, 64, 1)  # warm
        before = cpu_seconds(process.pid)
        many = wrk(url, script, 64, options.seconds)
        cpu = (cpu_seconds(process.pid) - before) / many["requests"] * 1e6
        one = one_caller(loadgen, url, body_file, script, options.seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    latency = one if "p50_us" in one else one["latency_us"]
    return {
        "rps_64": many["rps"],
        "p50_64_us": many["p50_us"],
        "p99_64_us": many["p99_us"],
        "cpu_us": cpu,
        "p50_1_us": latency.get("p50_us", latency.get("p50")),
        "p99_1_us": latency.get("p99_us", latency.get("p99")),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--loadgen", default=os.environ.get("LOADGEN_DIR", os.path.join(ROOT, "../shared/bench/loadgen")))
    parser.add_argument("--json", help="also write every round's figures here")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed (Debian: apt-get install wrk)")
    loadgen = options.loadgen if os.path.exists(os.path.join(options.loadgen, "Cargo.toml")) else None
    if not loadgen:
        print("loadgen is not at hand: latency at one connection comes from wrk", file=sys.stderr)
    loadgen = build(loadgen)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(os.path.join(ROOT, "fixtures/models"), os.path.join(folder, "models"))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            rounds.append({name: measure(name, path, body, options, loadgen, folder) for name, path, body in TARGETS})
    if options.json:
        with open(options.json, "w") as out:
            json.dump(rounds, out, indent=1)
    print("| target | RPS at 64 | p50 / p99 at 64, µs | CPU per request, µs | p50 / p99 at 1, µs |")
    print("|---|---|---|---|---|")
    for name, _, _ in TARGETS:
        middle = {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
        print(
            f"| {name} | {middle['rps_64']:.0f} | {middle['p50_64_us']:.0f} / {middle['p99_64_us']:.0f} "
            f"| {middle['cpu_us']:.1f} | {middle['p50_1_us']:.0f} / {middle['p99_1_us']:.0f} |"
        )
    for name, against in [("fraud", "echo"), ("digits", "echo, image body")]:
        ratio = lambda key: statistics.median(each[name][key] / each[against][key] for each in rounds)
        extra = statistics.median(each[name]["cpu_us"] - each[against]["cpu_us"] for each in rounds)
        print(
            f"{name} against its echo, median of each round's ratio: RPS {ratio('rps_64'):.2f}, "
            f"CPU +{extra:.1f} µs, p99 at 1 {ratio('p99_1_us'):.2f}"
        )


main()
