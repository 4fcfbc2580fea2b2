#include "device_api.h"

#include <stdexcept>

#include "cta.h"
#include "kernels.h"
#include "others.h"
#include "sketches.h"

namespace fastllc::cuda {
namespace {

void check(cudaError_t error, const std::string& doing) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // told here, and not again at the next launch
    throw std::runtime_error("CUDA, " + doing + ": " + cudaGetErrorString(error) + " (" +
                             cudaGetErrorName(error) + ")");
}

__global__ void place_kernel(const __grid_constant__ Placing placing) {
    constexpr std::int64_t words = sizeof(Entry) / sizeof(std::uint64_t);
    const auto* const from = reinterpret_cast<const std::uint64_t*>(placing.entries);
    auto* const to = reinterpret_cast<std::uint64_t*>(placing.table);
    for (std::int64_t i = threadIdx.x; i < placing.n * words; i += kThreads) to[i] = from[i];
}

__global__ void add_sketches_kernel(const __grid_constant__ Arguments a) {
    for (std::int64_t chain = blockIdx.y; chain < a.n_chains; chain += gridDim.y)
        add_strips(a, std::int64_t{blockIdx.x} * kThreads + threadIdx.x, chain);
}

template <class L>
__global__ void __launch_bounds__(kThreads) fill_kernel(const __grid_constant__ Filling filling) {
    fill_cta<L>(filling, blockIdx.x);
}

template <class L>
__global__ void __launch_bounds__(kThreads) penalty_kernel(const __grid_constant__ Arguments a) {
    __shared__ PenaltyShared<L> shared;
    penalty_cta(a, blockIdx.x, shared);
}

}  // namespace

int driver_version() {
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() { return CUDART_VERSION; }

std::string architectures() {
    std::string all;
    for (const int architecture : {__CUDA_ARCH_LIST__})
        all += (all.empty() ? "" : " ") + std::to_string(architecture / 10);
    return all;
}

std::string compiler() {
    return "NVIDIA " + std::to_string(__CUDACC_VER_MAJOR__) + "." +
           std::to_string(__CUDACC_VER_MINOR__) + "." + std::to_string(__CUDACC_VER_BUILD__);
}

OnDevice::OnDevice(int device) {
    check(cudaGetDevice(&before_), "finding the current device");
    check(cudaSetDevice(device), "choosing device " + std::to_string(device));
}

OnDevice::~OnDevice() { cudaSetDevice(before_); }

void check_launch(const char* kernel) {
    check(cudaGetLastError(), std::string("launching ") + kernel);
}

bool capturing(void* stream) {
    cudaStreamCaptureStatus status{};
    check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "asking a stream");
    return status != cudaStreamCaptureStatusNone;
}

int device_of(std::uint64_t address) {
    cudaPointerAttributes found{};
    check(cudaPointerGetAttributes(&found, reinterpret_cast<const void*>(address)),
          "asking where memory lies");
    const bool ours = found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged;
    return ours ? found.device : -1;
}

void place_entries(const Placing& placing, void* stream) {
    place_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(placing);
    check_launch("place");
}

void add_sketches(const Arguments& a, void* stream) {
    const dim3 grid(unsigned((kComponents * a.sketches.dim + kThreads - 1) / kThreads),
                    unsigned(least(a.n_chains, 65535)));
    add_sketches_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
    check_launch("add_sketches");
}

void fill(const Filling& filling, bool wide, std::int64_t tiles, void* stream) {
    auto* const to = static_cast<cudaStream_t>(stream);
    if (wide)
        fill_kernel<scalar::Double><<<unsigned(tiles), kThreads, 0, to>>>(filling);
    else
        fill_kernel<scalar::Single><<<unsigned(tiles), kThreads, 0, to>>>(filling);
    check_launch("standard_normal");
}

void penalize(const Arguments& a, bool wide, std::int64_t tiles, void* stream) {
    auto* const to = static_cast<cudaStream_t>(stream);
    if (wide)
        penalty_kernel<scalar::Double><<<unsigned(tiles), kThreads, 0, to>>>(a);
    else
        penalty_kernel<scalar::Single><<<unsigned(tiles), kThreads, 0, to>>>(a);
    check_launch("localization_penalty");
}

}  // namespace fastllc::cuda
