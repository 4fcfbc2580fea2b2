#include "kernels.cuh"

namespace fastllc::cuda {
const Kernels bfloat16_kernels{&step<Bfloat16>, &sketch<Bfloat16>};
}
