"""What the suites share: where the server is, the golden cases as numpy arrays, and a runner.

A suite is a file of functions named `test_…`; `main` runs them in the order in which they are written, prints one line
for each, and exits with 1 if any failed. The server is a fresh `millrace serve` over a copy of `fixtures/models` with
`--admin-on-data-plane`; its addresses come in the environment.
"""

import base64
import faulthandler
import glob
import json
import os
import sys
import time
import traceback

import numpy as np

DATA = os.environ["MILLRACE_DATA"]
"""`host:port` of the data port: HTTP/1.1, HTTP/2 and gRPC of every protocol."""
SOCKET = os.environ["MILLRACE_SOCKET"]
"""The path of a Unix socket that is a data port as well."""
ADMIN = os.environ["MILLRACE_ADMIN"]
"""`host:port` of the admin port."""
FIXTURES = os.environ["MILLRACE_FIXTURES"]
"""The folder with `models` and `cases`."""
PROTOS = os.environ["MILLRACE_PROTOS"]
"""The folder with the `.proto` files."""
REPOSITORY = os.environ["MILLRACE_REPOSITORY"]
"""The folder that the server serves: a copy of `fixtures/models` that may be changed."""

NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}


class Case:
    """One question and its answer: `inputs` and `outputs` are arrays by name, `datatypes` OIP's names for all of them."""

    def __init__(self, case):
        self.model, self.version, self.tolerance = case["model"], case["version"], case["tolerance"]
        self.datatypes = {}
        self.inputs = {name: self._array(name, tensor) for name, tensor in case["inputs"].items()}
        self.outputs = {name: self._array(name, tensor) for name, tensor in case["outputs"].items()}

    def _array(self, name, tensor):
        self.datatypes[name] = tensor["dtype"]
        data = tensor["data"]
        if tensor["dtype"] == "BYTES":
            data = [base64.b64decode(element["b64"]) for element in data]
        elif tensor["dtype"].startswith("FP"):
            data = [float(element) for element in data]
        return np.array(data, dtype=NUMPY[tensor["dtype"]]).reshape(tensor["shape"])

    def has_json(self):
        """Whether OIP's JSON can carry it: half precision and text that is not UTF-8 have no form there."""
        return "FP16" not in self.datatypes.values()

    def check(self, name, got):
        """Fails unless `got` is the output `name`: the same dtype and shape; equal bits where the tolerance is 0."""
        want = self.outputs[name]
        got = np.asarray(got)
        where = f"{self.model} {self.version} {name}"
        equal(list(got.shape), list(want.shape), f"{where}: shape")
        if want.dtype == np.object_:
            texts = [text.encode() if isinstance(text, str) else bytes(text) for text in got.ravel()]
            equal(texts, list(want.ravel()), where)
        elif want.dtype.kind == "f":
            equal(got.dtype, want.dtype, f"{where}: dtype")
            bits = f"u{want.dtype.itemsize}"
            same = (got.view(bits) == want.view(bits)) | (np.isnan(got) & np.isnan(want))
            if self.tolerance > 0:
                wide, wanted = got.astype(np.float64), want.astype(np.float64)
                with np.errstate(invalid="ignore"):
                    same |= np.abs(wide - wanted) <= self.tolerance * np.maximum(1, np.abs(wanted))
            true(same.all(), f"{where}: {got} is not {want}")
        else:
            equal(got.dtype, want.dtype, f"{where}: dtype")
            true((got == want).all(), f"{where}: {got} is not {want}")


def cases():
    """Every golden case of `fixtures/models`."""
    paths = sorted(glob.glob(os.path.join(FIXTURES, "cases", "*.json")))
    found = [Case(case) for path in paths for case in json.load(open(path, encoding="utf-8"))["cases"]]
    true(len(found) > 40, f"only {len(found)} cases")
    return found


def equal(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def true(condition, what=""):
    if not condition:
        raise AssertionError(what)


def refused(kind, act, *texts):
    """Calls `act`, which must raise `kind` with all of `texts` in its message; gives the error."""
    try:
        answer = act()
    except kind as error:
        for text in texts:
            true(text in str(error), f"`{error}` lacks `{text}`")
        return error
    raise AssertionError(f"answered: {answer!r}")


def main(names):
    """Runs the tests among `names`, which is the suite's `globals()`."""
    # A suite that hangs ends with the place where it does.
    faulthandler.dump_traceback_later(300, exit=True)
    failed = 0
    for name, test in list(names.items()):
        if not name.startswith("test_"):
            continue
        begin = time.monotonic()
        try:
            test()
            print(f"ok     {name} ({time.monotonic() - begin:.2f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)
