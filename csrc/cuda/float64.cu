#include "kernels.cuh"

namespace fastllc::cuda {
const Kernels float64_kernels{&step<Full<scalar::Double>>, &sketch<Full<scalar::Double>>};
}
