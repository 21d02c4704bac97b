"""Build the compiled ops, lite_detr_d2/_C.abi3.so.

The library uses torch's stable ABI, so one build serves every torch from 2.10 on. Where it cannot be built, the
installation succeeds without it, and leaves the reason in a file that lite_detr_d2.ops reports at first use.

It has CUDA kernels if a GPU is present and a CUDA toolkit is found. FORCE_CUDA=1 builds them without a GPU; without a
toolkit it builds nothing, and leaves the reason. FORCE_CUDA=0 leaves them out. TORCH_CUDA_ARCH_LIST names the
architectures; by default they are those of the GPUs that are present, or the usual ones.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils import cpp_extension
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

EXTENSION = "lite_detr_d2._C"
SOURCES = Path("lite_detr_d2/csrc")
OLDEST_TORCH = (2, 10)
CUDA_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")  # by default where no GPU is present


def wants_cuda() -> bool:
    forced = os.environ.get("FORCE_CUDA", "")
    return torch.version.cuda is not None and (forced == "1" or (forced != "0" and torch.cuda.is_available()))


def find_cuda_root() -> tuple[Path | None, str]:
    """The first candidate that holds both the compiler and the runtime library, or why there is none."""
    nvcc = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), cpp_extension.CUDA_HOME, "/usr/local/cuda"]
    candidates += [str(Path(nvcc).resolve().parents[1])] if nvcc else []
    roots = list(dict.fromkeys(Path(candidate) for candidate in candidates if candidate))
    for root in roots:
        if (root / "bin" / "nvcc").exists() and any(root.glob("lib*/libcudart.so*")):
            return root, ""
    searched = ", ".join(map(str, roots))
    return None, f"no CUDA toolkit (bin/nvcc and lib64/libcudart.so) in {searched}; set CUDA_HOME to one"


def default_architectures(nvcc: Path) -> str:
    """Those of the usual GPUs that the compiler knows, and code that later ones translate."""
    listed = subprocess.run([str(nvcc), "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    supported = re.findall(r"sm_(\d+)\b", listed)
    architectures = [name for name in CUDA_ARCHITECTURES if name.replace(".", "") in supported]
    if not architectures:
        raise RuntimeError(
            f"{nvcc} compiles for none of the architectures {', '.join(CUDA_ARCHITECTURES)}; "
            "set TORCH_CUDA_ARCH_LIST to those to build for, or CUDA_HOME to another toolkit"
        )
    return ";".join(architectures) + "+PTX"


WANTS_CUDA = wants_cuda()
CUDA_ROOT, WHY_NO_CUDA = find_cuda_root() if WANTS_CUDA else (None, "")


class BuildOps(BuildExtension):
    """Builds the extension, or records why it could not be built."""

    def run(self) -> None:
        library = Path(self.get_ext_fullpath(EXTENSION))
        build_error = library.with_name("_C.build_error.txt")
        # What an earlier build left must not pass for the result of this one.
        library.unlink(missing_ok=True)
        build_error.unlink(missing_ok=True)
        try:
            if torch.torch_version.TorchVersion(torch.__version__) < OLDEST_TORCH:
                raise RuntimeError(f"torch {torch.__version__} is too old to build them; they need 2.10 or later")
            if os.environ.get("FORCE_CUDA") == "1" and CUDA_ROOT is None:
                raise RuntimeError(f"FORCE_CUDA=1, but {WHY_NO_CUDA or 'torch was built without CUDA'}")
            if CUDA_ROOT is not None and not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
                os.environ["TORCH_CUDA_ARCH_LIST"] = default_architectures(CUDA_ROOT / "bin" / "nvcc")
            super().run()
            if WHY_NO_CUDA:
                build_error.write_text(f"{WHY_NO_CUDA}\n", encoding="utf-8")
                self.warn(f"the ops of lite_detr_d2 are built for the CPU only: {WHY_NO_CUDA}")
        except Exception as error:  # whatever stops a compiler: the package works without it
            build_error.parent.mkdir(parents=True, exist_ok=True)
            build_error.write_text(f"{type(error).__name__}: {error}\n", encoding="utf-8")
            self.warn(f"the compiled ops of lite_detr_d2 could not be built, it will be slow: {error}")


def ops_extension() -> Extension:
    oldest_torch = (OLDEST_TORCH[0] << 56) | (OLDEST_TORCH[1] << 48)
    define_macros = [("TORCH_TARGET_VERSION", f"{oldest_torch:#018x}ULL")]
    sources = sorted(map(str, SOURCES.rglob("*.cpp")))
    # Without errno and traps more loops vectorise, to the same results. Vectors are passed between inlined functions
    # only, so no ABI is at stake.
    cxx = ["-std=c++20", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wno-psabi"]
    cxx += ["-include", str((SOURCES / "old_systems.h").absolute())]
    if CUDA_ROOT is None:
        return CppExtension(
            EXTENSION, sources, define_macros=define_macros, extra_compile_args=cxx, py_limited_api=True
        )
    cpp_extension.CUDA_HOME = str(CUDA_ROOT)  # torch's own guess may hold a compiler and no libraries
    return CUDAExtension(
        EXTENSION,
        sources + sorted(map(str, SOURCES.rglob("*.cu"))),
        define_macros=[*define_macros, ("USE_CUDA", "1")],  # declares torch's functions for streams
        extra_compile_args={"cxx": cxx, "nvcc": ["-O3", "-Xcompiler", "-fvisibility=hidden"]},
        py_limited_api=True,
    )


if __name__ == "__main__":  # tools/gpu/run.sh and the tests import the functions
    setup(ext_modules=[ops_extension()], cmdclass={"build_ext": BuildOps})
