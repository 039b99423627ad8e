"""The server under loads that hurt: what the batching finds by itself against fixed settings, overload, priorities, greedy
callers, many models, models that come and go, the start, and what stays in memory.

  python3 benches/serving SCENARIO… --model NAME=FOLDER [--model …] [--json OUT]

SCENARIO is one of: sweep overload priority fairness many loading start memory, or all. FOLDER is a model's folder as in a
repository, with numbered versions. `cargo build --release --bin millrace` and `cargo build --release -p millrace-traffic`
come first; $MILLRACE and $TRAFFIC name other binaries. The server has core 0, the traffic core 1. Everything talks
to loopback and stops by itself. Repeat before you conclude: machines are noisy.
"""

import argparse
import json
import os
import random
import statistics
import sys
import threading
import time
import urllib.request

import server as rig
from server import one_batch, p99, serving, since, table

SIZES = (1, 4, 16, 64)
TIMEOUTS = (0, 1000, 5000)
LOADS = (1, 8, 64)


def setting(size, timeout):
    return {"MILLRACE_BATCHING__MAX_BATCH_SIZE": str(size), "MILLRACE_BATCHING__BATCH_TIMEOUT_MICROS": str(timeout)}


def sweep(name, folder, options):
    """Learned batching against fixed sizes and timeouts, at several numbers of callers."""
    settings = {"auto": {}, "off": {"MILLRACE_BATCHING__ENABLED": "false"}}
    settings |= {f"{size} rows, {timeout / 1000:g} ms": setting(size, timeout) for size in SIZES[1:] for timeout in TIMEOUTS}
    def measured(label):
        """Answers a second and p99 by number of callers, of a server that has just started."""
        with serving({name: folder}, settings[label]) as server:
            stream = {"name": "x", **server.question(name), "in_flight": max(LOADS)}
            pieces = [("learn", 1.5)] + [piece for load in LOADS for piece in ((f"settle {load}", 0.3), (str(load), options.seconds))]
            callers = [64] + [load for load in LOADS for _ in range(2)]
            parts = server.play(pieces, [{**stream, "load": {"callers": callers}}])["x"]
        return {load: (parts[str(load)]["good_per_second"], p99(parts[str(load)])) for load in LOADS}

    figures = {(label, load): [] for label in settings for load in LOADS}
    for turn in range(options.rounds):
        # In another order each time, so that a slow minute does not always hit the same.
        for label in random.Random(turn).sample(list(settings), len(settings)):
            for load, figure in measured(label).items():
                figures[label, load].append(figure)
    middle = {key: tuple(map(statistics.median, zip(*values))) for key, values in figures.items()}
    fixed = [label for label in settings if label != "auto"]
    best = {load: max(fixed, key=lambda label: middle[label, load]) for load in LOADS}
    # The best of many settings was lucky too: whether it is better is asked anew, in turn with what batching learned.
    pairs = {label: [(measured("auto"), measured(label)) for _ in range(options.pairs)] for label in set(best.values())}
    ratios = {load: [ours[load][0] / theirs[load][0] for ours, theirs in pairs[best[load]]] for load in LOADS}
    rows = [[label] + [cell for load in LOADS for cell in middle[label, load]] for label in settings]
    rows.append(["auto to the best fixed, in pairs"] + [cell for load in LOADS for cell in (statistics.median(ratios[load]), best[load])])
    columns = ["setting"] + [cell for load in LOADS for cell in (f"{load} callers: answers/s", "p99, ms")]
    table(f"{name}: learned batching against fixed settings", columns, rows)
    return {"figures": {f"{label} @ {load}": values for (label, load), values in figures.items()}, "best": best, "ratios": ratios}


def capacity(server, question, seconds, in_flight=64):
    stream = {"name": "x", **question, "in_flight": in_flight, "load": {"callers": [in_flight, in_flight]}}
    return server.play([("learn", 2.0), ("peak", seconds)], [stream])["x"]["peak"]["good_per_second"]


def overload(name, folder, options):
    """Open loop at several times what the server can do; clients wait so long and no longer, and obey Retry-After."""
    deadline = options.deadline
    rows, figures = [], {}
    with serving({name: folder}) as server:
        question = server.grpc_question(name) if options.grpc else server.question(name)
        peak = capacity(server, question, options.seconds)
        impatient = {**question, "deadline_header": "grpc-timeout" if options.grpc else "x-request-timeout-ms"}
        for times in options.times:
            stream = {"name": "x", **impatient, "in_flight": 2048, "deadline_ms": deadline, "obeys_retry_after": True}
            pieces = [("before", 1.0), ("over", options.over), ("after", 4.0)]
            parts = server.play(pieces, [{**stream, "load": {"rates": [peak / 2, peak * times, peak / 2]}}], grace=options.grace)["x"]
            over, after = parts["over"], parts["after"]
            fine = [tenth for tenth, count in enumerate(after["timeline"]) if count >= 0.8 * peak / 2 / 10]
            refused = over["refusal_us"] or {"p50": 0, "p99": 0}
            retried = over["retried_good"] / over["retried"] if over["retried"] else float("nan")
            rows.append([
                f"{times:g}×", over["due"] / options.over, over["good_per_second"] / peak, p99(over), (over["late"] + over["given_up"]) / max(over["due"], 1),
                refused["p50"] / 1e3, refused["p99"] / 1e3, retried, (fine[0] + 1) / 10 if fine else float("nan"),
                over["lag_us"]["p99"] / 1e3,
            ])
            figures[times] = parts
    table(
        f"{name}: overload{' over gRPC' if options.grpc else ''}; peak {peak:.0f} answers/s, clients wait {deadline:g} ms",
        ["load", "asked/s", "goodput of peak", "p99 of answers, ms", "late or never sent", "refusals p50, ms", "p99, ms", "asked again and answered", "recovered within, s", "generator's lag p99, ms"],
        rows,
    )
    return {"peak": peak, "parts": figures}


def priority(name, folder, options):
    """A rare request of the highest class, with and without bulk traffic of the lowest that saturates the server."""
    goal = {"MILLRACE_BATCHING__LATENCY_GOAL": f"{options.goal:g}ms"} if options.goal else {}
    with serving({name: folder}, goal) as server:
        high = {"name": "high", **server.question(name, parameters={"priority": 1}), "in_flight": 64}
        bulk = {"name": "bulk", **server.question(name, parameters={"priority": 3}), "in_flight": 64}
        rate = max(20.0, capacity(server, server.question(name), options.seconds) / 50)
        before = server.runs(name)
        # So many that the hundredth part of them is some.
        long = min(max(5.0, 400 / rate), 20.0)
        pieces = [("learn", 2.0), ("settle", 2.0), ("alone", long), ("with bulk", long)]
        parts = server.play(pieces, [{**high, "load": {"rates": [rate] * 4}}, {**bulk, "load": {"callers": [64, 0, 0, 64]}}])
        batch, size = one_batch(since(before, server.runs(name)))
    rows = [[piece, p99(parts["high"][piece]), parts["high"][piece]["latency_us"]["p50"] / 1e3, parts["bulk"][piece]["good_per_second"], p99(parts["bulk"][piece])] for piece in ("alone", "with bulk")]
    table(f"{name}: {rate:.0f} requests/s of high priority, latency_goal {f'{options.goal:g} ms' if options.goal else 'none'}", ["", "high p99, ms", "high p50, ms", "bulk answers/s", "bulk p99, ms"], rows)
    print(f"\nwith bulk p99 is {rows[1][1] - rows[0][1] - batch:.3g} ms beyond that of alone and one batch ({size} rows, {batch:.3g} ms)")
    return parts


def fairness(name, folder, options):
    """One caller with ten times the load of another, on a connection of its own."""
    # A connection is a caller, and this one has more under way than a connection may by default.
    with serving({name: folder}, {"MILLRACE_LIMITS__MAX_STREAMS": "1024"}) as server:
        question = server.question(name)
        peak = capacity(server, question, options.seconds)
        modest = {"name": "modest", **question, "in_flight": 64, "http2": 1}
        greedy = {"name": "greedy", **question, "in_flight": 1024, "http2": 1}
        share = peak / 8
        before = server.runs(name)
        # So many that the hundredth part of them is some.
        long = min(max(4.0, 300 / share), 20.0)
        pieces = [("learn", 1.0), ("alone", long), ("with the greedy", long)]
        parts = server.play(pieces, [{**modest, "load": {"rates": [share] * 3}}, {**greedy, "load": {"rates": [0, 0, share * 10]}}])
        batch, size = one_batch(since(before, server.runs(name)))
    rows = [[piece, p99(parts["modest"][piece]), parts["modest"][piece]["latency_us"]["p50"] / 1e3, parts["greedy"][piece]["good_per_second"]] for piece in ("alone", "with the greedy")]
    table(f"{name}: {share:.0f} requests/s of one caller, ten times as many of another", ["", "p99, ms", "p50, ms", "greedy answers/s"], rows)
    print(f"\nbeyond one batch ({size} rows, {batch:.3g} ms) p99 is {(rows[1][1] - batch) / rows[0][1]:.2f} times that of alone")
    return parts


def many(name, folder, options):
    """Fifty models, the n-th asked 1/n as often as the first, on two cores with the traffic beside them."""
    count, callers = 50, 100
    names = [f"{name}-{number:02}" for number in range(count)]
    whole = sum(1 / (number + 1) for number in range(count))
    shares = [max(1, round(callers / (number + 1) / whole)) for number in range(count)]
    results = {"one": [], "fifty": []}
    for _ in range(options.rounds):
        for kind in results:
            used = names[:1] if kind == "one" else names
            with serving({each: folder for each in used}, core=None) as server:
                streams = []
                for each, share in zip(used, shares if kind == "fifty" else [sum(shares)]):
                    streams.append({"name": each, **server.question(each), "in_flight": share, "load": {"callers": [share] * 2}})
                parts = server.play([("learn", 4.0), ("run", 2 * options.seconds)], streams, core=None)
            results[kind].append(sum(each["run"]["good_per_second"] for each in parts.values()))
    one, fifty = (statistics.median(results[kind]) for kind in ("one", "fifty"))
    table(f"{name}: {sum(shares)} callers on two cores", ["models", "answers/s", "of one model's"], [["1", one, 1.0], [str(count), fifty, fifty / one]])
    return results


def loading(name, folder, options):
    """Half load and full load, while another model is loaded and unloaded all the time."""
    other = options.other or folder
    with serving({name: folder, "other": other}) as server:
        question = server.question(name)
        peak = capacity(server, question, options.seconds)
        half = {"name": "half", **question, "in_flight": 256, "load": {"rates": [peak / 2]}}
        full = {"name": "full", **question, "in_flight": 64, "load": {"callers": [64]}}
        stop, times, failures = threading.Event(), [], []

        def load():
            server.order("/v2/repository/models/other/unload")
            begun = time.monotonic()
            server.order("/v2/repository/models/other/load")
            return time.monotonic() - begun

        def churn():
            try:
                while not stop.is_set():
                    times.append(load())
            except OSError as failure:
                failures.append(failure)

        def stirred(stream):
            stop.clear()
            times.clear()
            thread = threading.Thread(target=churn)
            thread.start()
            part = server.play([("run", 6.0)], [stream])[stream["name"]]["run"]
            stop.set()
            thread.join()
            if failures:
                raise failures[0]
            return part, statistics.median(times), len(times)

        quiet_load = statistics.median(load() for _ in range(3))
        quiet = {stream["name"]: server.play([("run", 6.0)], [stream])[stream["name"]]["run"] for stream in (half, full)}
        loud = {stream["name"]: stirred(stream) for stream in (half, full)}
    rows = []
    for kind in ("half", "full"):
        part, loads, count = loud[kind]
        rows.append([kind, p99(quiet[kind]), p99(part), p99(part) / p99(quiet[kind]), quiet[kind]["good_per_second"], part["good_per_second"], part["good_per_second"] / quiet[kind]["good_per_second"], str(count), loads, loads / quiet_load])
    table(
        f"{name}: while another model comes and goes; quiet it loads in {quiet_load:.2f} s",
        ["load", "p99 quiet, ms", "p99 while loading, ms", "ratio", "answers/s quiet", "while loading", "ratio", "loads", "a load takes, s", "of its quiet time"],
        rows,
    )
    return {"quiet": quiet, "loud": {kind: part for kind, (part, _, _) in loud.items()}}


def start(name, folder, options):
    """From the start of the process to the first right answer; memory with one model loaded; the binary's size."""
    answered, memory = [], []
    for _ in range(7):
        with serving({name: folder}) as server:
            question = server.question(name)
            with open(question["body"], "rb") as body:
                request = urllib.request.Request(f"http://127.0.0.1:{server.port}{question['path']}", data=body.read(), headers=question["headers"])
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
            answered.append(time.monotonic() - server.begun)
            # Idle again: what the start needed is given back.
            time.sleep(1.0)
            memory.append(server.memory_mib())
    size = os.path.getsize(rig.BINARY) / 1e6
    rows = [[statistics.median(answered), statistics.median(memory), size]]
    table(f"{name}: the start", ["to the first answer, s", "resident memory, MiB", "binary, MB"], rows)
    return {"answered": answered, "memory": memory, "binary": size}


def memory(name, folder, options):
    """Resident memory beside another model, and once that is unloaded; a second time, because what is kept must not grow."""
    # Some allocators give memory back seconds after it was freed.
    settle = lambda: time.sleep(12.0)
    with serving({name: folder}) as server:
        settle()
        states = [("alone", server.memory_mib())]
    with serving({name: folder, "other": options.other or folder}) as server:
        settle()
        states.append(("with the other", server.memory_mib()))
        for state in ("the other unloaded", "unloaded again"):
            server.order("/v2/repository/models/other/unload")
            settle()
            states.append((state, server.memory_mib()))
            server.order("/v2/repository/models/other/load")
    table(f"{name}: resident memory, MiB", [state for state, _ in states], [[mib for _, mib in states]])
    return dict(states)


SCENARIOS = {each.__name__: each for each in (sweep, overload, priority, fairness, many, loading, start, memory)}


def main():
    parser = argparse.ArgumentParser(prog="benches/serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="+", choices=[*SCENARIOS, "all"])
    parser.add_argument("--model", action="append", required=True, metavar="NAME=FOLDER", help="a model and its folder; may be given again")
    parser.add_argument("--other", metavar="FOLDER", help="loading, memory: the model that comes and goes (default: the same)")
    parser.add_argument("--rounds", type=int, default=2, help="sweep and many: how often everything is measured")
    parser.add_argument("--pairs", type=int, default=7, help="sweep: how often the best fixed setting is measured again, in turn with ours")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--deadline", type=float, default=250.0, help="overload: milliseconds that clients wait")
    parser.add_argument("--grpc", action="store_true", help="overload: over gRPC")
    parser.add_argument("--times", type=float, nargs="+", default=[2, 5, 10], help="overload: loads, as multiples of the peak")
    parser.add_argument("--over", type=float, default=4.0, metavar="SECONDS", help="overload: how long each lasts")
    parser.add_argument("--grace", type=float, default=60.0, metavar="SECONDS", help="overload: how long those who are to come back are waited for")
    parser.add_argument("--goal", type=float, metavar="MS", help="priority: the server's latency_goal, which bounds bulk batches")
    parser.add_argument("--json", metavar="OUT", help="also write all figures here")
    options = parser.parse_args()
    for binary in (rig.BINARY, rig.TRAFFIC):
        if not os.path.exists(binary):
            sys.exit(f"{binary} is not there; build it first (see --help)")
    chosen = SCENARIOS if "all" in options.scenario else options.scenario
    results = {}
    for model in options.model:
        name, folder = model.split("=", 1)
        for scenario in chosen:
            results[f"{scenario} {name}"] = SCENARIOS[scenario](name, folder, options)
            if options.json:
                with open(options.json, "w") as out:
                    json.dump(results, out)


main()
