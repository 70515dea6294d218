#pragma once

#include <string>

namespace xaiva {

struct Inference {
    bool compiled = false;   // TensorRT was there when this program was built
    std::string version;     // of the library that is loaded now, such as "8.6.1"
    bool ready = false;      // a runtime could be made: library, driver and GPU go together
    std::string reason;      // why not, in TensorRT's words where it said any
};

// Ask TensorRT what it can do here. Never throws; without a GPU it is merely not ready.
Inference probe_inference();

// "8.6.1" of 8601, "10.3.0" of 100300: TensorRT changed how it counts with version 10.
std::string inference_version(int number);

}  // namespace xaiva
