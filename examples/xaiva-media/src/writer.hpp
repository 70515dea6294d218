#pragma once

#include <opencv2/core.hpp>
#include <string>

#include "ffmpeg_error.hpp"

namespace xaiva {

// Writes a video file frame by frame. The file name determines the container (.mkv, .avi, .mp4).
class Writer {
public:
    // Throws Error if this FFmpeg does not have the container or the encoder, or the file cannot be created.
    Writer(const std::string& file, const std::string& encoder, int width, int height, AVRational frame_rate);
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    // Adds a BGR frame of the size that the constructor received.
    void add(const cv::Mat& picture);

    // Writes the remaining packets and the trailer, and closes the file.
    void finish();

private:
    void drain(const AVFrame* frame);
    void close();

    std::string file_;
    AVFormatContext* format_ = nullptr;
    AVStream* stream_ = nullptr;
    Owned<AVCodecContext> encoder_;
    Owned<AVFrame> frame_;
    Owned<AVPacket> packet_;
    Owned<SwsContext> scaler_;
    int64_t count_ = 0;
};

}  // namespace xaiva
