#!/bin/sh
# Makes a folder with the library that the tests run on, unless it is there, and prints the path of the library.
#
# usage: library.sh TARGET_DIRECTORY
#
# It lies in TARGET_DIRECTORY/onnxruntime-<version>, about 60 MB; making it takes some seconds and needs Python and PyPI.
# Nothing of Python runs in the tests. Two runs at once wait for each other.
set -eu
version=1.31.1
mkdir -p "$1"
target=$(cd "$1" && pwd)
folder="$target/onnxruntime-$version"

if command -v flock >/dev/null 2>&1; then
  exec 9>"$folder.lock"
  flock 9
fi
# Written last, so that a folder whose making was cut off is made again.
if [ ! -e "$folder/complete" ]; then
  {
    python3 -m venv --clear "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "onnxruntime==$version"
  } >&2
  touch "$folder/complete"
fi
for file in "$folder"/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.*; do
  if [ -f "$file" ]; then
    echo "$file"
    exit 0
  fi
done
echo "no library in $folder" >&2
exit 1
