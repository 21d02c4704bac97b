// Included before all else in every C++ source (setup.py): functions of glibc by versions that old systems have, so that
// a library built on a new system loads on those with glibc 2.28 (manylinux_2_28). old_systems.cpp has what these lack.

#pragma once

#if defined(__linux__) && defined(__x86_64__)
// 2.29 has a version that leaves errno alone, which nothing here reads; 2.34 moved dlsym from libdl to libc.
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
#endif
