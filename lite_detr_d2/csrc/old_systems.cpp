// What the headers of new compilers take from glibc 2.32 and from the libstdc++ of GCC 9 to 12, and older systems do not
// have. PyTorch's libraries bring some of it, too, each version of its own choice: the linker would take it from there.

#include <new>
#include <sstream>

#if defined(__linux__) && defined(__GLIBCXX__)

// Constructors without arguments, and what str() is in C++20.
template class std::basic_stringbuf<char>;
template class std::basic_ostringstream<char>;
template class std::basic_stringstream<char>;

namespace lite_detr {

// std::shared_ptr asks whether it may count without atomic operations: it may not.
extern char never_single_threaded __asm__("__libc_single_threaded") __attribute__((visibility("hidden")));
char never_single_threaded = 0;

// std::allocator calls it for more elements than an address space holds. Weak, for a libstdc++ that is linked statically
// has its own.
[[noreturn]] __attribute__((weak, visibility("hidden"))) void throw_bad_array_new_length() __asm__(
    "_ZSt28__throw_bad_array_new_lengthv");
void throw_bad_array_new_length() { throw std::bad_array_new_length(); }

}  // namespace lite_detr

#endif
