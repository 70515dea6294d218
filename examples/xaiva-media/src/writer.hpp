#pragma once

#include <opencv2/core.hpp>
#include <string>

#include "ffmpeg_error.hpp"

namespace xaiva {

// A video file that is written picture by picture. The container follows the file's name (.mkv, .avi, .mp4).
class Writer {
public:
    // Throws Error when the container or the encoder is not in this FFmpeg, or the file cannot be made.
    Writer(const std::string& file, const std::string& encoder, int width, int height, AVRational frame_rate);
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    // Add a BGR picture of the size given above.
    void add(const cv::Mat& picture);

    // Write what is left and close the file; without it the file has no end.
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
