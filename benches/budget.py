#!/usr/bin/env python3
"""Where the time of one request goes: the mean of each stage as the server itself tells it, in µs.

  benches/budget.py [--rounds 3] [--seconds 4] [--only WORD] [--binary PATH] [--json OUT]

Builds the release binary (unless one is named), serves a copy of fixtures/models on loopback pinned to core 0, and asks it from
core 1 with `wrk`, over one connection and over 64. One request in eight asks for `Server-Timing`, drawn at random; the others
keep the load as it is without asking. Stages are told to the nanosecond and share their instants, so their means must add up to
the mean of the total: the script stops where they do not. `outside` is what is left of a request's round (connections / requests
per second): the kernel, the wire, reading the head, sending the answer, and wrk itself. gRPC is left out, for its load generator
shows no metadata.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request

import load

STAGES = ["receive", "decode", "admit", "queue", "form", "compute", "wake", "encode"]
CONNECTIONS = (1, 64)
SAMPLE = 8

SCRIPT = """
local file = io.open('BODY', 'rb')
wrk.method, wrk.body = 'POST', file:read('*a')
HEADERS
local threads = {}
function setup(thread) table.insert(threads, thread) end

function init(args)
  sums, count, rows, closed, plain = {}, 0, 0, {}, wrk.format()
  wrk.headers['X-Millrace-Timing'] = '1'
  asking = wrk.format()
end

function request()
  if math.random(SAMPLE) == 1 then return asking end
  return plain
end

function response(status, headers, body)
  local told = headers['server-timing'] or headers['Server-Timing']
  if not told then return end
  count = count + 1
  for name, time in told:gmatch('(%a+);dur=([%d.]+)') do sums[name] = (sums[name] or 0) + tonumber(time) end
  local n, why = told:match('rows=(%d+) closed_by=(%a+)')
  if n then
    rows = rows + tonumber(n)
    closed[why] = (closed[why] or 0) + 1
  end
end

function done(summary, latency, requests)
  for _, thread in ipairs(threads) do
    print(string.format('told count %d', thread:get('count')))
    print(string.format('told rows %d', thread:get('rows')))
    for name, time in pairs(thread:get('sums')) do print(string.format('told sum %s %.9f', name, time)) end
    for why, times in pairs(thread:get('closed')) do print(string.format('told closed %s %d', why, times)) end
  end
end
"""


def ask(url, script, connections, seconds):
    """Asks for so long; gives requests, seconds, and the sums of what was told."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"errors under load:\n{text}")
    number = lambda pattern: float(re.search(pattern, text).group(1))
    requests = number(r"(\d+) requests in")
    return {
        "requests": requests,
        "seconds": requests / number(r"Requests/sec:\s+([\d.]+)"),
        "told": number(r"told count (\d+)"),
        "rows": number(r"told rows (\d+)"),
        "ms": {name: float(time) for name, time in re.findall(r"told sum (\w+) ([\d.]+)", text)},
        "closed": {why: int(times) for why, times in re.findall(r"told closed (\w+) (\d+)", text)},
    }


def pool(rounds):
    """Sums of several rounds."""
    add = lambda key: sum(one[key] for one in rounds)
    merge = lambda key: {name: sum(one[key].get(name, 0) for one in rounds) for one in rounds for name in one[key]}
    return {key: add(key) for key in ("requests", "seconds", "told", "rows")} | {key: merge(key) for key in ("ms", "closed")}


def means(sums, connections):
    """Means in µs of what was told."""
    if not sums["told"]:
        sys.exit("no answer told its stages")
    if set(sums["ms"]) != {*STAGES, "total"}:
        sys.exit(f"other stages than expected: {sorted(sums['ms'])}")
    stages = {name: sums["ms"][name] / sums["told"] * 1e3 for name in STAGES}
    total = sums["ms"]["total"] / sums["told"] * 1e3
    if abs(sum(stages.values()) - total) > 1e-3:
        sys.exit(f"the stages do not add up: {sum(stages.values())} of {total}")
    round_trip = connections * sums["seconds"] / sums["requests"] * 1e6
    return {
        "connections": connections,
        "requests": sums["requests"],
        "told": sums["told"],
        "rps": sums["requests"] / sums["seconds"],
        "stages_us": stages,
        "total_us": total,
        "outside_us": round_trip - total,
        "round_us": round_trip,
        "batch_rows": sums["rows"] / sums["told"],
        "closed_by": {why: times / sums["told"] for why, times in sums["closed"].items()},
    }


def clock(url, target):
    """What one reading of the clock costs the server, in µs, and how many a request has."""
    costs = []
    for _ in range(101):
        request = urllib.request.Request(url + "?explain=1", target.body, target.headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = json.loads(answer.headers["X-Millrace-Explain"])["clock"]
        costs.append(told["each_us"])
    return {"each_us": statistics.median(costs), "readings": told["readings"]}


def measure(target, options, folder):
    port = load.free_port()
    url = f"http://127.0.0.1:{port}{target.path}"
    command = [options.binary, "serve", os.path.join(folder, "models"), "--no-watch", "--admin", "off"]
    command += ["--listen", f"127.0.0.1:{port}", "--state-dir", os.path.join(folder, "state")]
    body, script = os.path.join(folder, "body"), os.path.join(folder, "ask.lua")
    with open(body, "wb") as out:
        out.write(target.body)
    headers = "\n".join(f"wrk.headers['{name}'] = '{value}'" for name, value in target.headers.items())
    with open(script, "w") as out:
        out.write(SCRIPT.replace("BODY", body).replace("HEADERS", headers).replace("SAMPLE", str(SAMPLE)))
    process = load.start(command, port)
    try:
        ask(url, script, 64, 1)  # warm
        rounds = [{c: ask(url, script, c, options.seconds) for c in CONNECTIONS} for _ in range(options.rounds)]
        budgets = [means(pool([one[c] for one in rounds]), c) for c in CONNECTIONS]
        return {"question": target.name, "budgets": budgets, "clock": clock(url, target)}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def table(results):
    columns = [(result, budget) for result in results for budget in result["budgets"]]
    row = lambda name, cells: print("| " + " | ".join([name, *cells]) + " |")
    row("mean µs of", [f"{result['question']}, {budget['connections']}" for result, budget in columns])
    print("|---|" + "---:|" * len(columns))
    for stage in STAGES:
        row(f"`{stage}`", [f"{budget['stages_us'][stage]:.2f}" for _, budget in columns])
    row("**total**", [f"**{budget['total_us']:.2f}**" for _, budget in columns])
    clocks = [result["clock"] for result, _ in columns]
    row("of it the clock", [f"{clock['readings']} × {clock['each_us']:.3f}" for clock in clocks])
    row("outside", [f"{budget['outside_us']:.2f}" for _, budget in columns])
    row("round", [f"{budget['round_us']:.2f}" for _, budget in columns])
    row("requests per second", [f"{budget['rps']:,.0f}" for _, budget in columns])
    row("rows of its batch", [f"{budget['batch_rows']:.1f}" for _, budget in columns])
    why = lambda budget: sorted(budget["closed_by"].items(), key=lambda item: -item[1])
    row("closed by", [", ".join(f"{name} {share:.0%}" for name, share in why(budget)) for _, budget in columns])
    row("answers that told", [f"{budget['told']:,.0f}" for _, budget in columns])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="", metavar="WORD", help="only questions whose name holds WORD")
    parser.add_argument("--binary", help="this server, built already")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    if not options.binary:
        subprocess.run(["cargo", "build", "--release", "--bin", "millrace"], cwd=load.ROOT, check=True)
        options.binary = os.path.join(load.ROOT, "target", "release", "millrace")
    targets = [target for target in load.TARGETS if not target.grpc and options.only in target.name]
    if not targets:
        sys.exit(f"no question's name holds {options.only!r}")
    folder = tempfile.mkdtemp(prefix="millrace-budget-")
    try:
        shutil.copytree(os.path.join(load.ROOT, "fixtures", "models"), os.path.join(folder, "models"))
        results = [measure(target, options, folder) for target in targets]
    finally:
        shutil.rmtree(folder)
    table(results)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"sample": SAMPLE, "rounds": options.rounds, "seconds": options.seconds, "results": results}, out, indent=1)


if __name__ == "__main__":
    main()
