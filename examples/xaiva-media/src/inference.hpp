#pragma once

#include <string>

namespace xaiva {

struct Inference {
    bool compiled = false;   // this program was built with TensorRT
    std::string version;     // of the loaded library, such as "8.6.1"
    bool ready = false;      // a runtime could be created: library, driver and GPU are compatible
    std::string reason;      // why not, as TensorRT reports it
};

// Returns the state of TensorRT on this machine. Never throws. Without a GPU, `ready` is false.
Inference probe_inference();

// Returns "8.6.1" for 8601 and "10.3.0" for 100300. TensorRT 10 changed the format of the number.
std::string inference_version(int number);

}  // namespace xaiva
