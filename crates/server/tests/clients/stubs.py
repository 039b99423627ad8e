"""Stubs made from our own `.proto` files by grpcio-tools, in a folder of their own that is removed at the end.

Import this before the modules that it makes: `tensorflow`, `tensorflow_serving`, `inference_pb2`, `management_pb2`.
"""

import atexit
import os
import shutil
import sys
import tempfile

import grpc_tools
from grpc_tools import protoc

from common import PROTOS

_folder = tempfile.mkdtemp()
atexit.register(shutil.rmtree, _folder)


def _sources():
    for folder, _, files in os.walk(PROTOS):
        for file in files:
            path = os.path.relpath(os.path.join(folder, file), PROTOS)
            # A folder `grpc` would hide grpc itself; its messages come from grpcio-health-checking.
            if file.endswith(".proto") and not path.startswith("grpc" + os.sep):
                yield path


_own = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
if protoc.main(["protoc", f"-I{PROTOS}", f"-I{_own}", f"--python_out={_folder}", f"--grpc_python_out={_folder}", *_sources()]):
    raise RuntimeError("the stubs cannot be made")
sys.path.append(_folder)
