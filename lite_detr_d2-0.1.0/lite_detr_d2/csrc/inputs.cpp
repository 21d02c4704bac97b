// The check that an exported model begins with. Its runtime may check nothing: AOTInductor reads as many bytes as it was
// compiled for, whatever it is given.

#include <tuple>

#include "checks.h"

namespace lite_detr {
namespace {

void check_range(const char* name, int64_t got, int64_t smallest, int64_t largest) {
  check_argument(
      smallest <= got && got <= largest, "images", "this model is exported for ", name, " ", smallest, " to ", largest,
      ", got ", got);
}

void check_values(const Tensor& sizes, int64_t height, int64_t width) {
  const auto* values = static_cast<const int64_t*>(sizes.data_ptr());
  for (int64_t image = 0; image < sizes.size(0); ++image) {
    const int64_t own_height = values[2 * image], own_width = values[2 * image + 1];
    check_argument(
        0 < own_height && own_height <= height && 0 < own_width && own_width <= width, "sizes",
        "expected (height, width) of each image, within the ", height, " x ", width, " of images, got (", own_height,
        ", ", own_width, ")");
  }
}

std::tuple<Tensor, Tensor> check_images(
    const Tensor& images,
    const Tensor& sizes,
    const std::vector<int64_t>& smallest,
    const std::vector<int64_t>& largest) {
  using torch::headeronly::toString;
  check_argument(smallest.size() == 3 && largest.size() == 3, "smallest, largest", "expected batch, height and width");
  check_argument(
      images.scalar_type() == ScalarType::Byte, "images", "expected uint8, got ", toString(images.scalar_type()));
  check_argument(
      sizes.scalar_type() == ScalarType::Long, "sizes", "expected int64, got ", toString(sizes.scalar_type()));
  check_argument(
      images.dim() == 4 && images.size(1) == 3, "images", "expected shape (N, 3, H, W), got ",
      describe(shape_of(images)));
  check_range("a batch of", images.size(0), smallest[0], largest[0]);
  check_range("heights of", images.size(2), smallest[1], largest[1]);
  check_range("widths of", images.size(3), smallest[2], largest[2]);
  check_shape(sizes, "sizes", {images.size(0), 2});
  const Tensor own_sizes = torch::stable::clone(torch::stable::contiguous(sizes));
  if (sizes.is_cpu()) {  // to read them from another device would wait for it
    check_values(own_sizes, images.size(2), images.size(3));
  }
  return {torch::stable::clone(torch::stable::contiguous(images)), own_sizes};
}

}  // namespace
}  // namespace lite_detr

STABLE_TORCH_LIBRARY_IMPL(lite_detr, CompositeExplicitAutograd, library) {
  library.impl("check_images", TORCH_BOX(&lite_detr::check_images));
}
