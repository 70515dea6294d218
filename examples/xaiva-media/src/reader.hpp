#pragma once

#include <opencv2/core.hpp>
#include <string>

#include "ffmpeg_error.hpp"

namespace xaiva {

// Reads the first video stream of a file as BGR frames.
class Reader {
public:
    // Throws Error if the file cannot be opened, has no video, or needs a codec that this FFmpeg does not have.
    explicit Reader(const std::string& file);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // Stores the next frame. Returns false at the end. Throws Error if the file is damaged.
    bool next(cv::Mat& picture);

    int width() const { return decoder_->width; }
    int height() const { return decoder_->height; }
    AVRational frame_rate() const { return frame_rate_; }  // 25 if the file does not state it
    std::string codec() const { return avcodec_get_name(decoder_->codec_id); }
    std::string container() const { return format_->iformat->name; }

private:
    bool receive();
    void convert(cv::Mat& picture);

    std::string file_;
    AVFormatContext* format_ = nullptr;
    int stream_ = -1;
    AVRational frame_rate_{25, 1};
    Owned<AVCodecContext> decoder_;
    Owned<AVFrame> frame_;
    Owned<AVPacket> packet_;
    Owned<SwsContext> scaler_;
    bool draining_ = false;
};

}  // namespace xaiva
