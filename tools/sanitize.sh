#!/usr/bin/env bash
# Tests the CPU ops under AddressSanitizer and UndefinedBehaviorSanitizer, with the kernels of each instruction set that
# this processor has. Needs g++ and a set-up checkout (`make setup`), and takes some minutes.
#
#     tools/sanitize.sh [examples of each property, 150 by default]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
examples=${1:-150}
python=${PYTHON:-$root/.venv/bin/python}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Conversions of numbers that do not fit are not among those of `undefined`. A finding ends the process.
sanitizers="-fsanitize=address,undefined,float-cast-overflow -fno-sanitize=vptr -fno-sanitize-recover=all"
flags="$sanitizers -fno-omit-frame-pointer -g1"

# Python is not instrumented, so the runtime must be there before it starts. The C++ library comes with it: otherwise the
# runtime would look for the functions that throw exceptions before they are there. Nothing but our library is
# instrumented, so what Python and torch leave allocated at the end says nothing.
preload="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so.6)"
sanitized() {
  env LD_PRELOAD="$preload" ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=1:exitcode=99" \
    UBSAN_OPTIONS="print_stacktrace=1" LITE_DETR_PURE_TORCH=0 PYTHONPATH="$work${PYTHONPATH:+:$PYTHONPATH}" "$@"
}

echo "== Are the sanitizers at work? Faults made on purpose."
cat > "$work/control.cpp" <<'CONTROL'
#include <cstdint>
extern "C" float read_float(const float* numbers, int64_t index) { return numbers[index]; }
extern "C" float read_new(int64_t index) {
  float* numbers = new float[4]();
  const float number = numbers[index];
  delete[] numbers;
  return number;
}
extern "C" int to_int(float number) { return static_cast<int>(number); }
CONTROL
# shellcheck disable=SC2086  # words
g++ $flags -O1 -fPIC -shared "$work/control.cpp" -o "$work/control.so"
cat > "$work/control.py" <<'CONTROL'
import ctypes
import sys

import torch

library = ctypes.CDLL(sys.argv[1])
library.read_float.restype = library.read_new.restype = ctypes.c_float
tensor = torch.ones(5)
address, large = ctypes.c_void_p(tensor.data_ptr()), ctypes.c_float(float(sys.argv[3]))
{
    "tensor": lambda: library.read_float(address, ctypes.c_int64(int(sys.argv[3]))),
    "new": lambda: library.read_new(ctypes.c_int64(int(sys.argv[3]))),
    "conversion": lambda: library.to_int(large),
}[sys.argv[2]]()
CONTROL
expect_finding() { # what, a good argument, a bad one, the message
  sanitized "$python" "$work/control.py" "$work/control.so" "$1" "$2"
  if sanitized "$python" "$work/control.py" "$work/control.so" "$1" "$3" > "$work/control.log" 2>&1; then
    echo "no sanitizer noticed: $1 $3" >&2
    exit 1
  fi
  grep -q "$4" "$work/control.log" || { cat "$work/control.log" >&2; exit 1; }
}
expect_finding tensor 4 5 heap-buffer-overflow
expect_finding new 3 -1 heap-buffer-overflow
expect_finding conversion 1e3 1e30 "is outside the range of representable values"

echo "== Build"
cp -r lite_detr_d2 tests "$work"
library=$work/lite_detr_d2/_C.abi3.so
rm -f "$work"/lite_detr_d2/_C.*
includes=$("$python" -c "from torch.utils.cpp_extension import include_paths as p; print(*('-I' + i for i in p()))")
libraries=$("$python" -c "from torch.utils.cpp_extension import library_paths as p; print(*('-L' + i for i in p()))")
# Less optimised than setup.py does it: more reads and writes are left to be checked.
compile="g++ $flags -O1 -std=c++20 -fPIC -Wno-psabi -DTORCH_TARGET_VERSION=0x020a000000000000ULL $includes"
find "$work/lite_detr_d2/csrc" -name "*.cpp" -print0 | xargs -0 -P "$(nproc)" -I{} sh -c "$compile -c '{}' -o '{}.o'"
# shellcheck disable=SC2046,SC2086  # words
g++ $sanitizers -shared $(find "$work" -name "*.cpp.o") -o "$library" $libraries -lc10 -ltorch -ltorch_cpu
# (grep must read all of it, or nm would fail.)
[ "$(nm -D "$library" | grep -c -e __asan_report_load -e __ubsan_handle)" -gt 1 ]

cd "$work"
for capability in default avx2 avx512; do
  name=$(sanitized ATEN_CPU_CAPABILITY=$capability "$python" -W ignore -c "
import torch
from lite_detr_d2.ops import deform_attn
assert deform_attn.__file__.startswith('$work'), deform_attn.__file__
print(torch.ops.lite_detr.cpu_capability())")
  if [ "$name" != "${capability^^}" ]; then
    echo "== $capability: not on this processor, which would use $name"
    continue
  fi
  echo "== $capability"
  sanitized ATEN_CPU_CAPABILITY=$capability LITE_DETR_EXAMPLES="$examples" "$python" -m pytest -q -p no:cacheprovider \
    tests/ops/test_deform_attn.py tests/ops/test_half.py tests/ops/test_errors.py tests/ops/test_properties.py
done
echo "== No finding."
