#pragma once

#include <cstdint>
#include <string>

#include "analyser.hpp"
#include "inference.hpp"

namespace xaiva {

// Minimum, mean and maximum of a series of numbers.
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

// The results of one run.
struct Summary {
    std::string input, container, codec, output, encoder;
    int width = 0;
    int height = 0;
    double frame_rate = 0;  // of the video, in frames per second
    double seconds = 0;     // duration of the run
    int64_t frames = 0;
    int64_t frames_with_motion = 0;
    int64_t boxes = 0;
    Range brightness, edges, motion;

    void add(const FrameStats& stats);
};

// Returns the JSON text of a run, with a line end. Numbers have four decimals in every locale.
std::string to_json(const Summary& summary, const Inference& inference);

// Returns the JSON text of --version.
std::string versions_json(const Inference& inference);

// Returns the text as a JSON string in quotes. Replaces bytes that are not valid UTF-8 with "?".
std::string quoted(const std::string& text);

}  // namespace xaiva
