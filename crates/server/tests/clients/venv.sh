#!/bin/sh
# Makes the environment that the client suites run in, unless it is there, and prints the path of its Python.
#
# usage: venv.sh TARGET_DIRECTORY
#
# It lies in TARGET_DIRECTORY/clients-venv-<checksum of requirements.txt and of the Python version>, about 500 MB; making
# it takes a minute or two and needs PyPI. Two runs at once wait for each other.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
sum=$({ python3 --version; cat "$here/requirements.txt"; } | cksum | cut -d ' ' -f 1)
folder="$target/clients-venv-$sum"

if command -v flock >/dev/null 2>&1; then
  exec 9>"$folder.lock"
  flock 9
fi
# Written last, so that an environment whose making was cut off is made again.
if [ ! -e "$folder/complete" ]; then
  {
    python3 -m venv --clear "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  } >&2
  touch "$folder/complete"
fi
echo "$folder/bin/python"
