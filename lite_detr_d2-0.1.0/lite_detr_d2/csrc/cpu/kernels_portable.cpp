// The kernels for any processor, and for float64.

#define LITE_DETR_ISA portable
#define LITE_DETR_VECTOR_BYTES 16
#define LITE_DETR_FLOAT64
#include "attention.h"

namespace lite_detr::cpu {

const Kernels kPortable = {
    "DEFAULT", portable::attend, portable::attend_backward, portable::attend_by_key, portable::attend_by_key_backward};

}  // namespace lite_detr::cpu
