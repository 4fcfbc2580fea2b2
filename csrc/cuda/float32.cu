#include "kernels.cuh"

namespace fastllc::cuda {
const Kernels float32_kernels{&step<Full<scalar::Single>>, &sketch<Full<scalar::Single>>};
}
