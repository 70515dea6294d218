#pragma once

#include <cstdint>
#include <string>

#include "analyser.hpp"
#include "inference.hpp"

namespace xaiva {

// Least, mean and most of a series of numbers.
class Range {
public:
    void add(double value);
    double least() const { return count_ == 0 ? 0 : least_; }
    double most() const { return count_ == 0 ? 0 : most_; }
    double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

private:
    int64_t count_ = 0;
    double sum_ = 0;
    double least_ = 0;
    double most_ = 0;
};

// What one run did.
struct Summary {
    std::string input, container, codec, output, encoder;
    int width = 0;
    int height = 0;
    double frame_rate = 0;  // of the video, pictures a second
    double seconds = 0;     // that the run took
    int64_t frames = 0;
    int64_t frames_with_motion = 0;
    int64_t boxes = 0;
    Range brightness, edges, motion;

    void add(const FrameStats& stats);
};

// JSON text of the run, with a line end. Numbers have four decimals, whatever the locale.
std::string to_json(const Summary& summary, const Inference& inference);

// JSON text of --version.
std::string versions_json(const Inference& inference);

// Text as a JSON string, in quotes. Bytes that are no UTF-8 become "?".
std::string quoted(const std::string& text);

}  // namespace xaiva
