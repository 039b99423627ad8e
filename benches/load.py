#!/usr/bin/env python3
"""Loads the release binary in turn with a bare hyper or tonic echo of the same bytes, and prints them side by side.

  benches/load.py [--rounds 3] [--seconds 4] [--only WORD] [--binaries DIR] [--json OUT]
                  [--against RESULTS] [--open SHARE ...]

Builds what it needs (or takes millrace, hyper_echo, tonic_echo and millrace-traffic from --binaries), serves a copy of
fixtures/models on loopback, and stops by itself. The server is pinned to core 0 and the client to core 1, so figures are per
core. Throughput at 64 requests in flight comes from `wrk` (HTTP/1.1, 64 connections) and from `h2load` (gRPC, 4 connections
of 16 streams); the latency of a single caller from `millrace-traffic`, which also looks at every answer's status.
With --open each server is also asked at such shares of its own throughput, at random times that do not depend on its
answers (HTTP/1.1, 64 connections); latencies count from when a request was due, and the machine's own pauses are watched, for no
server can have shorter tails than they make. Compare only figures of one run: machines are noisy, so every round measures everything once. What may be compared
with another run are ratios to the echo on the same kind of machine: where RESULTS (benches/results/load.json) come from
such a machine, the table has theirs beside. It is for people to read and fails nothing.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")


FRAUD_ROW = [52.3, 0.25, 14, 3.2, 1, 0, 2, 0.4, 730, 0]


def json_body(value):
    return json.dumps(value).encode()


def digits_body():
    return json_body({"instances": [[[[((x * y) % 17) / 16 for x in range(8)] for y in range(8)]]]})


def binary_body(name, shape, data):
    """An Open Inference Protocol request with a binary tensor, and the length of its JSON."""
    inputs = [{"name": name, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": len(data)}}]
    head = json_body({"inputs": inputs, "parameters": {"binary_data_output": True}})
    return head + data, len(head)


def field(number, content):
    """A length-delimited protobuf field."""
    def varint(n):
        out = bytearray()
        while n > 0x7F:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        out.append(n)
        return bytes(out)

    return varint(number << 3 | 2) + varint(len(content)) + content


def grpc_body(model, name, shape, data):
    """An encoded inference.ModelInferRequest to version 1, with raw contents."""
    tensor = field(1, name.encode()) + field(2, b"FP32") + field(3, bytes(shape))
    return field(1, model.encode()) + field(2, b"1") + field(5, tensor) + field(7, data)


FRAUD_INPUT = {"name": "transaction", "datatype": "FP32", "shape": [1, len(FRAUD_ROW)], "data": FRAUD_ROW}
FRAUD_BYTES = struct.pack(f"<{len(FRAUD_ROW)}f", *FRAUD_ROW)
BINARY, HEAD_LENGTH = binary_body("transaction", [1, len(FRAUD_ROW)], FRAUD_BYTES)
JSON = {"Content-Type": "application/json"}
GRPC = {"content-type": "application/grpc", "te": "trailers"}


KINDS = ("echo", "ours")


class Target:
    """A question, asked of the server and of an echo."""

    def __init__(self, name, path, body, headers=None, grpc=False):
        self.name, self.path, self.body, self.headers, self.grpc = name, path, body, headers or JSON, grpc


TARGETS = [
    Target("fraud, TFS JSON", "/v1/models/fraud/versions/1:predict", json_body({"instances": [FRAUD_ROW]})),
    Target("fraud, OIP JSON", "/v2/models/fraud/versions/1/infer", json_body({"inputs": [FRAUD_INPUT]}), JSON),
    Target("digits, TFS JSON", "/v1/models/digits:predict", digits_body()),
    Target(
        "fraud, OIP binary",
        "/v2/models/fraud/versions/1/infer",
        BINARY,
        {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(HEAD_LENGTH)},
    ),
    Target(
        "fraud, OIP gRPC",
        "/inference.GRPCInferenceService/ModelInfer",
        grpc_body("fraud", "transaction", [1, len(FRAUD_ROW)], FRAUD_BYTES),
        GRPC,
        grpc=True,
    ),
]


def machine():
    """What must be the same for ratios to be comparable."""
    with open("/proc/cpuinfo") as info:
        names = re.findall(r"model name\s*:\s*(.*)", info.read())
    return {"processor": names[0] if names else "", "cores": os.cpu_count()}


def ratios(rounds, name):
    """Of our requests per second to the echo's, round by round."""
    return [each[name]["ours"]["rps_64"] / each[name]["echo"]["rps_64"] for each in rounds if name in each]


def earlier(path):
    """The median ratio of each question in an earlier run on the same kind of machine."""
    if not path or not os.path.exists(path):
        return {}
    with open(path) as file:
        results = json.load(file)
    if results["machine"] != machine():
        print(f"{path} comes from another kind of machine: {results['machine']['processor']}", file=sys.stderr)
        return {}
    names = {name for each in results["rounds"] for name in each}
    return {name: statistics.median(ratios(results["rounds"], name)) for name in names}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def build():
    # In one go: what they share is then built once, with the same features for both.
    packages = ["-p", "millrace-server", "-p", "millrace-benches", "--bin", "millrace", "--bin", "hyper_echo", "--bin", "tonic_echo"]
    packages += ["-p", "millrace-traffic", "--bin", "millrace-traffic"]
    subprocess.run(["cargo", "build", "--release", *packages], cwd=ROOT, check=True)


def start(command, port):
    process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            # The server listens before its models are ready; the echoes know no such route and need none.
            url = f"http://127.0.0.1:{port}/v2/health/ready"
            if command[0].endswith("tonic_echo"):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return process
            with urllib.request.urlopen(url, timeout=1) as answer:
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
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"errors under load:\n{text}")
    return {
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        "requests": int(re.search(r"(\d+) requests in", text).group(1)),
    }


def h2load(url, target, body_file, seconds):
    command = ["taskset", "-c", "1", "h2load", "-c4", "-m16", "-t1", f"-D{seconds}", "-d", body_file]
    for name, value in target.headers.items():
        command += ["-H", f"{name}: {value}"]
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    done, failed = re.search(r"requests: .*?(\d+) succeeded, (\d+) failed", text).groups()
    if int(failed):
        sys.exit(f"errors under load:\n{text}")
    return {"rps": float(re.search(r"([\d.]+) req/s", text).group(1)), "requests": int(done)}


def one_caller(program, port, target, body_file, seconds):
    """Who asks again as soon as the answer is there."""
    stream = {"name": "one", "path": target.path, "body": body_file, "headers": target.headers, "in_flight": 1}
    stream |= {"load": {"callers": [1]}, "http2": 1 if target.grpc else None}
    plan = {"address": f"127.0.0.1:{port}", "pieces": [{"name": "all", "seconds": seconds}], "streams": [stream]}
    plan_file = body_file + ".plan"
    with open(plan_file, "w") as out:
        json.dump(plan, out)
    command = ["taskset", "-c", "1", program, plan_file]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["streams"]["one"][0]
    if report["refused"] or report["broken"] or report["unanswered"]:
        sys.exit(f"{target.name}: errors of one caller: {report}")
    return report["latency_us"]


def steady(program, port, target, request_file, rate, seconds):
    """Arrivals at random times, whatever the server does."""
    with open(request_file, "wb") as out:
        out.write(f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(target.body)}\r\n".encode())
        out.writelines(f"{name}: {value}\r\n".encode() for name, value in target.headers.items())
        out.write(b"\r\n" + target.body)
    command = ["taskset", "-c", "1", program, "steady", f"127.0.0.1:{port}", request_file, f"{rate:.0f}", str(seconds), "64"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if report["refused"] or report["unanswered"]:
        print(f"{target.name} at {rate:.0f}/s: refused {report['refused']}, unanswered {report['unanswered']}", file=sys.stderr)
    return {"rate": rate, "good": report["good_per_second"], **report["latency_us"], "lag_p99": report["lag_us"]["p99"]}


def pauses(program, share, seconds):
    """What requests would wait on core 0 for nothing but the machine's own pauses, with both cores busy as under load."""
    commands = [["taskset", "-c", core, program, "pauses", f"{share:g}", str(seconds)] for core in ("1", "0")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    return [json.loads(process.communicate()[0]) for process in processes][1]["wait_us"]


def measure(target, is_echo, options, folder):
    port = free_port()
    if is_echo:
        echo = "tonic_echo" if target.grpc else "hyper_echo"
        command = [os.path.join(options.binaries, echo), f"127.0.0.1:{port}"]
    else:
        command = [os.path.join(options.binaries, "millrace"), "serve", os.path.join(folder, "models"), "--no-watch"]
        command += ["--listen", f"127.0.0.1:{port}", "--admin", "off", "--state-dir", os.path.join(folder, "state")]
    body_file, script = os.path.join(folder, "body"), os.path.join(folder, "post.lua")
    with open(body_file, "wb") as out:
        # Before a gRPC message stand whether it is compressed, and its length.
        out.write(b"\0" + len(target.body).to_bytes(4, "big") + target.body if target.grpc else target.body)
    with open(script, "w") as out:
        out.write(f"local file = io.open('{body_file}', 'rb')\nwrk.method = 'POST'\nwrk.body = file:read('*a')\n")
        out.writelines(f"wrk.headers['{name}'] = '{value}'\n" for name, value in target.headers.items())
    process = start(command, port)
    try:
        url = f"http://127.0.0.1:{port}{target.path}"
        if target.grpc:
            load = lambda seconds: h2load(url, target, body_file, seconds)
        else:
            load = lambda seconds: wrk(url, script, 64, seconds)
        load(1)  # warm
        program = os.path.join(options.binaries, "millrace-traffic")
        # First, for it looks at every answer's status.
        one = one_caller(program, port, target, body_file, options.seconds)
        before = cpu_seconds(process.pid)
        many = load(options.seconds)
        cpu = (cpu_seconds(process.pid) - before) / many["requests"] * 1e6
        shares = [] if target.grpc else options.open
        ask = lambda share: steady(program, port, target, os.path.join(folder, "request"), share * many["rps"], options.seconds)
        opened = {f"{share:g}": {**ask(share), "machine": pauses(program, share, options.seconds)} for share in shares}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    return {
        "rps_64": many["rps"],
        "cpu_us": cpu,
        "p50_1_us": one["p50"],
        "p99_1_us": one["p99"],
        "open": opened,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="", metavar="WORD", help="only questions whose name holds WORD")
    parser.add_argument("--binaries", metavar="DIR", help="take the programs that are there and build none")
    parser.add_argument("--open", type=float, nargs="+", default=[], metavar="SHARE", help="also ask at such shares of each server's throughput, open loop")
    parser.add_argument("--json", help="also write every round's figures here")
    parser.add_argument("--against", default=os.path.join(ROOT, "benches/results/load.json"), help="an earlier run's --json")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed (Debian: apt-get install wrk)")
    if not shutil.which("h2load"):
        sys.exit("h2load is not installed (Debian: apt-get install nghttp2-client)")
    if not options.binaries:
        options.binaries = os.path.join(ROOT, "target/release")
        build()
    targets = [target for target in TARGETS if options.only in target.name]
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(os.path.join(ROOT, "fixtures/models"), os.path.join(folder, "models"))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            both = lambda target: {kind: measure(target, kind == "echo", options, folder) for kind in KINDS}
            rounds.append({target.name: both(target) for target in targets})
    before = earlier(options.against)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"machine": machine(), "rounds": rounds}, out, indent=1)
    print("| question | RPS at 64: ours, echo | ratio (rounds) | earlier | CPU per request, µs: ours, echo | p50 / p99 of one caller, µs: ours, echo |")
    print("|---|---|---|---|---|---|")
    for target in targets:
        def middle(kind, key):
            return statistics.median(each[target.name][kind][key] for each in rounds)

        own = ratios(rounds, target.name)
        ratio = f"{statistics.median(own):.2f} ({min(own):.2f} to {max(own):.2f})"
        last = f"{before[target.name]:.2f}" if target.name in before else ""
        latency = [f"{middle(kind, 'p50_1_us'):.0f} / {middle(kind, 'p99_1_us'):.0f}" for kind in reversed(KINDS)]
        print(
            f"| {target.name} | {middle('ours', 'rps_64'):.0f}, {middle('echo', 'rps_64'):.0f} | {ratio} | {last} "
            f"| {middle('ours', 'cpu_us'):.1f}, {middle('echo', 'cpu_us'):.1f} | {latency[0]}, {latency[1]} |"
        )
    if not options.open:
        return
    print("\n| question | share of its throughput | requests/s: ours, echo | p50 / p99, µs: ours | echo | the machine alone | generator's lag p99, µs |")
    print("|---|---|---|---|---|---|---|")
    for target in (target for target in targets if not target.grpc):
        for share in options.open:
            def middle(kind, key):
                return statistics.median(each[target.name][kind]["open"][f"{share:g}"][key] for each in rounds)

            latency = [f"{middle(kind, 'p50'):.0f} / {middle(kind, 'p99'):.0f}" for kind in reversed(KINDS)]
            lag = max(middle(kind, "lag_p99") for kind in KINDS)
            machine_p = [
                statistics.median(each[target.name][kind]["open"][f"{share:g}"]["machine"][key] for each in rounds for kind in KINDS)
                for key in ("p50", "p99")
            ]
            print(
                f"| {target.name} | {share:g} | {middle('ours', 'good'):.0f}, {middle('echo', 'good'):.0f} "
                f"| {latency[0]} | {latency[1]} | {machine_p[0]:.0f} / {machine_p[1]:.0f} | {lag:.0f} |"
            )


if __name__ == "__main__":
    main()
