#!/usr/bin/env bash
# Builds the ops for the GPU that is present, tests them there, and measures them: tools/gpu/run.sh [results folder].
# Needs torch with CUDA, a CUDA toolkit, a C++ compiler, ninja and pytest. Where detectron2 is, whole detectors are tested
# and measured, too; with pytest-xdist tests share the cores. A step that takes too long is cut off. All that was written
# until then is in results.tgz, too. Environment:
#   LIMIT   seconds from the start after which no step goes on, and none begins (default: 500)
#   PYTHON  the interpreter (default: python3)
set -uo pipefail
cd "$(dirname "$0")/../.."
LIMIT="${LIMIT:-500}"
if ! [[ "$LIMIT" =~ ^[1-9][0-9]*$ ]]; then
  echo "LIMIT: expected seconds, a whole number above 0, got '$LIMIT'" >&2
  exit 2
fi
mkdir -p "${1:-gpu_results}"
RESULTS="$(cd "${1:-gpu_results}" && pwd)"
PYTHON="${PYTHON:-python3}"
export LITE_DETR_OPS_ONLY=1 LITE_DETR_PURE_TORCH=0 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
STATUS=0

pack() {
  (cd "$RESULTS" && shopt -s nullglob && tar -czf results.tgz -- *.txt *.json)
}
trap pack EXIT

# within SECONDS FILE COMMAND...: in the time that is left at most; output goes to the file as it comes.
within() {
  local left=$((LIMIT - SECONDS)) file="$RESULTS/$2" limit code
  limit=$(($1 < left ? $1 : left))
  shift 2
  if [ "$limit" -le 5 ]; then
    echo "no time left" | tee "$file"
    return 1
  fi
  timeout -k 5 "$limit" "$@" >"$file" 2>&1
  code=$?
  echo "exit status $code, $SECONDS s after the start" >>"$file"
  return "$code"
}

# The toolkit that setup.py builds with, or its reason why there is none.
cuda_home() {
  "$PYTHON" -c "import sys, setup; root, why = setup.find_cuda_root(); sys.exit(why) if why else print(root)"
}

capability() {
  "$PYTHON" -c "import torch; print('%d.%d' % torch.cuda.get_device_capability())"
}

build() {
  FORCE_CUDA=1 within 200 build.txt "$PYTHON" setup.py build_ext --inplace && [ ! -e lite_detr_d2/_C.build_error.txt ]
}

# tests SECONDS NAME FILE
tests() {
  within "$1" "$2.txt" "$PYTHON" -m pytest -m gpu "$3" -v --tb=short --maxfail=25 --durations=8 -p no:cacheprovider \
    "${WORKERS[@]}" || STATUS=1
  tail -25 "$RESULTS/$2.txt"
}

# whole COMMAND...: with all of the package, not the ops alone.
whole() {
  local -x LITE_DETR_OPS_ONLY=0
  "$@"
}

# measure SECONDS NAME OPTION...: types of data are compared within one process only.
measure() {
  local limit="$1" name="$2"
  shift 2
  within "$limit" "$name.txt" "$PYTHON" benchmarks/ops.py --device cuda --sizes 17821 --rounds 5 --seconds 0.3 \
    --json "$RESULTS/$name.json" "$@" || STATUS=1
  cat "$RESULTS/$name.txt"
}

WORKERS=()
if "$PYTHON" -c "import xdist" 2>/dev/null; then
  WORKERS=(--numprocesses 6)
fi
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
within 90 build_classic.txt "$PYTHON" benchmarks/classic_msda.py &
CLASSIC=$!

# Benchmarks need some time yet.
TESTS=$((LIMIT - SECONDS - 160))
tests "$((TESTS < 240 ? TESTS : 240))" tests tests/ops/test_cuda.py

if whole "$PYTHON" -c "import detectron2" 2>/dev/null; then
  whole tests 240 detectors tests/test_cuda.py
  whole within 120 forms.txt "$PYTHON" benchmarks/forms.py --device cuda --batch 2 --json "$RESULTS/forms.json" \
    --forms eager "eager bfloat16" prepared "prepared bfloat16" "training step" "training step bfloat16" || STATUS=1
  cat "$RESULTS/forms.txt"
else
  echo "detectron2 is not here: detectors are neither tested nor measured" | tee "$RESULTS/detectors.txt"
fi

if ! wait "$CLASSIC"; then
  tail -30 "$RESULTS/build_classic.txt"
  STATUS=1
fi
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

# Last, for the first call of each takes minutes.
if whole "$PYTHON" -c "import detectron2" 2>/dev/null; then
  for FORM in "compiled" "compiled bfloat16" "compiled training step"; do
    whole within 180 "${FORM// /_}.txt" "$PYTHON" benchmarks/forms.py --device cuda --batch 2 --rounds 3 \
      --models lite_dino_h3l1_a2b3_r50_12ep --json "$RESULTS/${FORM// /_}.json" --forms eager "training step" "$FORM" ||
      STATUS=1
    cat "$RESULTS/${FORM// /_}.txt"
  done
fi
exit "$STATUS"
