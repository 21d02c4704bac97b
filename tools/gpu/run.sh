#!/usr/bin/env bash
# Builds the ops for the GPU that is present, tests them there, and measures them: tools/gpu/run.sh [results folder].
# Needs torch with CUDA, a CUDA toolkit, a C++ compiler, ninja and pytest; detectron2 is not needed. Takes less than
# nine minutes: a step that takes too long is cut off. All that was written until then is in results.tgz, too.
set -uo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${1:-gpu_results}"
RESULTS="$(cd "${1:-gpu_results}" && pwd)"
PYTHON="${PYTHON:-python3}"
export LITE_DETR_OPS_ONLY=1 LITE_DETR_PURE_TORCH=0 PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
STATUS=0
LAST=500 # seconds after the start of this script

pack() {
  (cd "$RESULTS" && shopt -s nullglob && tar -czf results.tgz -- *.txt *.json)
}
trap pack EXIT

# within SECONDS FILE COMMAND...: in the time that is left at most; output goes to the file as it comes.
within() {
  local limit="$1" file="$RESULTS/$2" left=$((LAST - SECONDS)) code
  shift 2
  if [ "$left" -le 5 ]; then
    echo "no time left" | tee "$file"
    return 1
  fi
  timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$file" 2>&1
  code=$?
  echo "exit status $code, $SECONDS s after the start" >>"$file"
  return "$code"
}

# The toolkit to compile and link with: its libraries are not always beside the first nvcc on the path.
cuda_home() {
  local nvcc root
  nvcc="$(command -v nvcc)" && nvcc="$(readlink -f "$nvcc")"
  for root in "${CUDA_HOME:-}" /usr/local/cuda "${nvcc%/bin/nvcc}"; do
    if [ -n "$root" ] && [ -x "$root/bin/nvcc" ] && compgen -G "$root/lib*/libcudart.so*" >/dev/null; then
      echo "$root"
      return
    fi
  done
  echo "no CUDA toolkit with nvcc and libcudart: set CUDA_HOME" >&2
  return 1
}

capability() {
  "$PYTHON" -c "import torch; print('%d.%d' % torch.cuda.get_device_capability())"
}

build() {
  FORCE_CUDA=1 within 200 build.txt "$PYTHON" setup.py build_ext --inplace && [ ! -e lite_detr_d2/_C.build_error.txt ]
}

# measure SECONDS NAME OPTION...: types of data are compared within one process only.
measure() {
  local limit="$1" name="$2"
  shift 2
  within "$limit" "$name.txt" "$PYTHON" benchmarks/ops.py --device cuda --sizes 17821 --rounds 5 --seconds 0.3 \
    --json "$RESULTS/$name.json" "$@" || STATUS=1
  cat "$RESULTS/$name.txt"
}

CUDA_HOME="$(cuda_home)" || exit 1
TORCH_CUDA_ARCH_LIST="$(capability)" || exit 1
export CUDA_HOME TORCH_CUDA_ARCH_LIST PATH="$CUDA_HOME/bin:$PATH"
{
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  "$PYTHON" -c "import torch; print('torch', torch.__version__)"
  echo "compute capability $TORCH_CUDA_ARCH_LIST, CUDA_HOME $CUDA_HOME"
} 2>&1 | tee "$RESULTS/machine.txt"

if ! build; then
  tail -30 "$RESULTS/build.txt"
  exit 1
fi
if ! within 90 build_classic.txt "$PYTHON" benchmarks/classic_msda.py; then
  tail -30 "$RESULTS/build_classic.txt"
  STATUS=1
fi

# Benchmarks need some time yet.
TESTS=$((LAST - SECONDS - 160))
within "$((TESTS < 240 ? TESTS : 240))" tests.txt "$PYTHON" -m pytest -m gpu tests/ops/test_cuda.py -v --tb=short \
  --maxfail=25 --durations=8 -p no:cacheprovider || STATUS=1
tail -25 "$RESULTS/tests.txt"

for IMAGES in 2 16; do
  measure 120 "goals_images$IMAGES" --goals --implementations ours classic baseline --dtype float32 bfloat16 \
    --images "$IMAGES"
done

if command -v compute-sanitizer >/dev/null; then
  # Each tensor is an allocation of its own, or an access beyond its end would be one to its neighbour.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 within 90 memcheck.txt compute-sanitizer --tool memcheck --error-exitcode 1 \
    "$PYTHON" -m pytest -m gpu tests/ops/test_cuda.py -q -p no:cacheprovider \
    -k "(unusual_sizes and not images) or (number_of_points and 32)" || STATUS=1
  tail -5 "$RESULTS/memcheck.txt"
fi

for IMAGES in 2 16; do
  measure 40 "float16_images$IMAGES" --implementations ours --dtype float32 float16 --images "$IMAGES"
done
exit "$STATUS"
