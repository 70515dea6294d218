#include "inference.hpp"

#ifdef XAIVA_WITH_TENSORRT
#include <NvInfer.h>

#include <memory>
#endif

namespace xaiva {

std::string inference_version(int number) {
    const int unit = number >= 10000 ? 10000 : 1000;
    return std::to_string(number / unit) + "." + std::to_string(number % unit / 100) + "." + std::to_string(number % 100);
}

#ifdef XAIVA_WITH_TENSORRT

namespace {
// Stores the first error instead of printing all errors.
class Listener final : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* text) noexcept override {
        if (severity <= Severity::kERROR && first.empty()) first = text;
    }
    std::string first;
};
}  // namespace

Inference probe_inference() {
    Inference result;
    result.compiled = true;
    result.version = inference_version(getInferLibVersion());
    Listener listener;
    try {
        const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(listener));
        result.ready = runtime != nullptr && listener.first.empty();
    } catch (const std::exception& error) {
        listener.first = error.what();
    }
    if (!result.ready) result.reason = listener.first.empty() ? "a runtime cannot be created" : listener.first;
    return result;
}

#else

Inference probe_inference() {
    Inference result;
    result.reason = "built without TensorRT";
    return result;
}

#endif

}  // namespace xaiva
