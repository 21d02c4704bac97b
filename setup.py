"""Build the compiled ops, lite_detr_d2/_C.abi3.so.

The library uses torch's stable ABI, so one build serves every torch from 2.10 on. Where it cannot be built, the
installation succeeds without it, and leaves the reason in a file that lite_detr_d2.ops reports at first use.
"""

from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

EXTENSION = "lite_detr_d2._C"
OLDEST_TORCH = (2, 10)


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
            super().run()
        except Exception as error:  # whatever stops a compiler: the package works without it
            build_error.parent.mkdir(parents=True, exist_ok=True)
            build_error.write_text(f"{type(error).__name__}: {error}\n")
            self.warn(f"the compiled ops of lite_detr_d2 could not be built, it will be slow: {error}")


def cpu_extension() -> CppExtension:
    sources = Path("lite_detr_d2/csrc")
    oldest_torch = (OLDEST_TORCH[0] << 56) | (OLDEST_TORCH[1] << 48)
    return CppExtension(
        EXTENSION,
        [str(path) for path in sorted(sources.rglob("*.cpp"))],
        define_macros=[("TORCH_TARGET_VERSION", f"{oldest_torch:#018x}ULL")],
        # Without errno and traps more loops vectorise, to the same results.
        extra_compile_args=[
            "-std=c++20",
            "-O3",
            "-g0",
            "-fno-math-errno",
            "-fno-trapping-math",
            "-fvisibility=hidden",
            "-Wno-psabi",  # vectors are passed between inlined functions only
        ],
        py_limited_api=True,
    )


setup(ext_modules=[cpu_extension()], cmdclass={"build_ext": BuildOps})
