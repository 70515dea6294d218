#include "analyser.hpp"

#include <algorithm>
#include <cstdio>
#include <opencv2/imgproc.hpp>

namespace xaiva {

FrameStats Analyser::look(const cv::Mat& picture) {
    FrameStats stats;
    cv::Mat grey;
    cv::Mat smooth;
    cv::cvtColor(picture, grey, cv::COLOR_BGR2GRAY);
    cv::GaussianBlur(grey, smooth, cv::Size(5, 5), 0);
    const double pixels = static_cast<double>(grey.total());
    stats.brightness = cv::mean(grey)[0] / 255.0;

    cv::Mat edges;
    cv::Canny(smooth, edges, 60, 180);
    stats.edges = cv::countNonZero(edges) / pixels;

    if (background_.empty() || background_.size() != smooth.size()) {
        smooth.convertTo(background_, CV_32F);
        return stats;  // the first frame is the background
    }
    cv::Mat expected;
    cv::Mat moving;
    background_.convertTo(expected, CV_8U);
    cv::absdiff(smooth, expected, moving);
    cv::threshold(moving, moving, threshold_, 255, cv::THRESH_BINARY);
    stats.motion = cv::countNonZero(moving) / pixels;
    cv::accumulateWeighted(smooth, background_, 0.1);

    cv::dilate(moving, moving, cv::Mat(), cv::Point(-1, -1), 2);
    std::vector<std::vector<cv::Point>> outlines;
    cv::findContours(moving, outlines, cv::RETR_EXTERNAL, cv::CHAIN_APPROX_SIMPLE);
    for (const auto& outline : outlines) {
        const cv::Rect box = cv::boundingRect(outline);
        if (box.area() >= smallest_ * pixels) stats.boxes.push_back(box);
    }
    std::sort(stats.boxes.begin(), stats.boxes.end(),
              [](const cv::Rect& a, const cv::Rect& b) { return a.area() > b.area(); });
    return stats;
}

void annotate(cv::Mat& picture, const FrameStats& stats, int64_t index) {
    for (const cv::Rect& box : stats.boxes) cv::rectangle(picture, box, cv::Scalar(0, 220, 0), 2);
    char line[96];
    std::snprintf(line, sizeof line, "#%lld  motion %.1f%%  edges %.1f%%", static_cast<long long>(index),
                  100 * stats.motion, 100 * stats.edges);
    const double scale = std::max(0.35, picture.cols / 1280.0);
    const cv::Point where(8, static_cast<int>(28 * scale) + 4);
    // A dark outline keeps light text readable on every background.
    cv::putText(picture, line, where, cv::FONT_HERSHEY_SIMPLEX, scale, cv::Scalar(0, 0, 0), 3, cv::LINE_AA);
    cv::putText(picture, line, where, cv::FONT_HERSHEY_SIMPLEX, scale, cv::Scalar(255, 255, 255), 1, cv::LINE_AA);
}

}  // namespace xaiva
