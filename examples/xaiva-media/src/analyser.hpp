#pragma once

#include <opencv2/core.hpp>
#include <vector>

namespace xaiva {

// Measurements of one frame. Shares range from 0 to 1.
struct FrameStats {
    double brightness = 0;       // mean of the grey frame
    double edges = 0;            // share of pixels on an edge
    double motion = 0;           // share of pixels that differ from the background
    std::vector<cv::Rect> boxes; // moving regions, largest first
};

// Analyses frames in order and learns the background from them.
class Analyser {
public:
    // threshold: the difference (0 to 255) from which a pixel counts as moving. smallest: the size of the smallest
    // region, as a share of the frame.
    explicit Analyser(double threshold = 25, double smallest = 0.0005) : threshold_(threshold), smallest_(smallest) {}

    FrameStats look(const cv::Mat& picture);

private:
    double threshold_;
    double smallest_;
    cv::Mat background_;
};

// Draws the measurements into the frame.
void annotate(cv::Mat& picture, const FrameStats& stats, int64_t index);

}  // namespace xaiva
