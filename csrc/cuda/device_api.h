// What is asked of the CUDA runtime, in words of our own: errors become exceptions.
#pragma once

#include <cstdint>
#include <string>

namespace fastllc::cuda {

int driver_version();  // as the driver names it, e.g. 13000; 0 without one. Creates no context.
int runtime_version();
std::string architectures();  // compute capabilities that were compiled for, times ten
std::string compiler();

// Makes a device current until the end of its scope.
class OnDevice {
public:
    explicit OnDevice(int device);
    ~OnDevice();
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

private:
    int before_ = 0;
};

// Throws if the last launch was refused.
void check_launch(const char* kernel);

bool capturing(void* stream);

// Where memory lies: the number of its device, or -1 for what a kernel may not touch.
int device_of(std::uint64_t address);

}  // namespace fastllc::cuda
