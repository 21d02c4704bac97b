#!/usr/bin/env bash
# Builds the ops for the GPU that is present, tests them there, and measures them: tools/gpu/run.sh [results folder].
# Needs torch with CUDA, a CUDA toolkit, a C++ compiler, ninja and pytest; detectron2 is not needed. Takes minutes.
set -uo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${1:-gpu_results}"
RESULTS="$(cd "${1:-gpu_results}" && pwd)"
PYTHON="${PYTHON:-python3}"
export LITE_DETR_OPS_ONLY=1 LITE_DETR_PURE_TORCH=0 PYTHONPATH="$PWD"
STATUS=0

capability() {
  "$PYTHON" -c "import torch; print('%d.%d' % torch.cuda.get_device_capability())"
}

build() {
  FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="$(capability)" "$PYTHON" setup.py build_ext --inplace &&
    [ ! -e lite_detr_d2/_C.build_error.txt ]
}

{
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  "$PYTHON" -c "import torch; print('torch', torch.__version__)"
  echo "compute capability $(capability)"
} | tee "$RESULTS/machine.txt"

if ! build >"$RESULTS/build.txt" 2>&1; then
  tail -30 "$RESULTS/build.txt"
  exit 1
fi

timeout 150 "$PYTHON" -m pytest -m gpu tests/ops/test_cuda.py -p no:cacheprovider >"$RESULTS/tests.txt" 2>&1 || STATUS=1
tail -15 "$RESULTS/tests.txt"

for DTYPE in float32 bfloat16 float16; do
  for IMAGES in 2 16; do
    NAME="$DTYPE-images$IMAGES"
    timeout 50 "$PYTHON" benchmarks/ops.py --device cuda --dtype "$DTYPE" --images "$IMAGES" --sizes 17821 900 \
      --seconds 0.3 --json "$RESULTS/$NAME.json" >"$RESULTS/$NAME.txt" 2>&1 || STATUS=1
    cat "$RESULTS/$NAME.txt"
  done
done
exit "$STATUS"
