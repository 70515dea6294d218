#pragma once

#include <opencv2/core.hpp>
#include <vector>

namespace xaiva {

// What was seen in one picture; all shares are from 0 to 1.
struct FrameStats {
    double brightness = 0;       // mean of the grey picture
    double edges = 0;            // share of pixels on an edge
    double motion = 0;           // share of pixels that differ from the background
    std::vector<cv::Rect> boxes; // where something moves, largest first
};

// Looks at pictures in order and learns the background from them.
class Analyser {
public:
    // How much a pixel must differ to count as moving (0 to 255), and the smallest box that counts, as a share of
    // the picture.
    explicit Analyser(double threshold = 25, double smallest = 0.0005) : threshold_(threshold), smallest_(smallest) {}

    FrameStats look(const cv::Mat& picture);

private:
    double threshold_;
    double smallest_;
    cv::Mat background_;
};

// Draw what was seen into the picture.
void annotate(cv::Mat& picture, const FrameStats& stats, int64_t index);

}  // namespace xaiva
