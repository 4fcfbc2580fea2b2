#include "kernels.cuh"

namespace fastllc::cuda {
const Kernels float16_kernels{&step<Float16>, &sketch<Float16>};
}
