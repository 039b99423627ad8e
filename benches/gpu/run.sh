#!/usr/bin/env bash
# The GPU run: what `cargo xtask build-cuda` built, on a machine with a card. It needs no Rust, and nothing but this folder's two
# scripts, the fixtures and the two programs:
#
#   benches/gpu/run.sh [--small] [PROGRAMS [RESULTS]]
#
# PROGRAMS is the folder with `millrace` and `candle_times` (target/cuda), or a .tar.gz of them. RESULTS is where tables and JSON
# go (target/gpu-results). --small takes small sizes.
#
#   benches/gpu/run.sh --dry      the same on the CPU, to see that everything is in place
#
# 1. the programs start, with the driver and without it, and without it the server says so and serves on the CPU;
# 2. answers of every fixture in FP32, FP16 and BF16 beside the CPU's;
# 3. the card's limits, and BERT-base in FP16 at 1 to 64 rows of 128 tokens, on one stream and on two;
# 4. refusals of memory, and a card that is full;
# 5. the same network in PyTorch, where there is one.
set -euo pipefail
cd "$(dirname "$0")/../.."

device=cuda
small=()
while [[ ${1:-} == --* ]]; do
  case $1 in
    --small) small=(--small) ;;
    --dry) device=cpu small=(--small) ;;
    *) echo "unknown word $1" >&2; exit 2 ;;
  esac
  shift
done
programs=${1:-target/cuda}
results=${2:-${OUT:-target}/gpu-results}
mkdir -p "$results"
if [[ $programs == *.tar.gz ]]; then
  unpacked=$(mktemp -d)
  tar -xzf "$programs" -C "$unpacked"
  programs=$unpacked
fi

# NVIDIA's libraries come with the toolkit or with PyTorch's wheels, which no loader knows of.
for folder in /usr/local/cuda/lib64 $(python3 - <<'P' 2>/dev/null || true
import glob, site, sys
places = site.getsitepackages() + [p for p in sys.path if p.endswith("-packages")]
print("\n".join(sorted({d for p in places for d in glob.glob(p + "/nvidia/*/lib")})))
P
); do
  [[ -d $folder ]] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH

# ask METHOD PATH [BODY]: one request by HTTP, without needing a program for it.
ask() {
  exec 3<>/dev/tcp/127.0.0.1/18080 || return 1
  printf '%s %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s' \
    "$1" "$2" "$(printf %s "${3:-}" | wc -c)" "${3:-}" >&3
  cat <&3
  exec 3>&-
}

step() { printf '\n# %s\n\n' "$*"; }
failed=0

{
  step "the machine"
  nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv 2>/dev/null || echo "no nvidia-smi"
  ldd --version | sed -n 1p

  step "the programs start"
  for program in millrace candle_times; do
    "$programs/$program" --version || failed=1
  done

  step "without a card the server says so and serves on the CPU"
  models=$(mktemp -d)
  cp -r fixtures/text-models/bert_mean "$models/"
  log=$results/fallback.log
  # No card is visible to this one, whether or not there is a driver.
  CUDA_VISIBLE_DEVICES='' "$programs/millrace" serve "$models" --listen 127.0.0.1:18080 --admin off \
    --state-dir "$models/.state" >"$log" 2>&1 &
  server=$!
  until ask GET /v2/models/bert_mean/ready 2>/dev/null | grep ' 200 ' >/dev/null || ! kill -0 "$server" 2>/dev/null; do sleep 0.2; done
  answer=$(ask POST /embed '{"inputs": "hello"}' 2>&1 | tail -n 1 || true)
  echo "answer: ${answer:0:100}"
  if [[ $answer == '[['* ]] && grep 'models run on the CPU' "$log"; then echo ok; else echo WRONG; cat "$log"; failed=1; fi
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -rf "$models"

  step "the engine"
  "$programs/candle_times" --device "$device" "${small[@]}" --json "$results/candle.json" \
    --fixtures fixtures/text-models --fixtures fixtures/vision-models || failed=1

  step "PyTorch"
  if python3 -c 'import torch' 2>/dev/null; then
    python3 benches/gpu/torch_times.py --device "$device" "${small[@]}" --json "$results/torch.json" || failed=1
  else
    echo "no python3 with torch: left out"
  fi
  exit "$failed"
} 2>&1 | tee "$results/report.md"
