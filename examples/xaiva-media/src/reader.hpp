#pragma once

#include <opencv2/core.hpp>
#include <string>

#include "ffmpeg_error.hpp"

namespace xaiva {

// The first video stream of a file, as BGR pictures, one after the other.
class Reader {
public:
    // Throws Error when the file cannot be opened, has no video, or its codec is not in this FFmpeg.
    explicit Reader(const std::string& file);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // The next picture; false at the end. Throws Error when the file is damaged.
    bool next(cv::Mat& picture);

    int width() const { return decoder_->width; }
    int height() const { return decoder_->height; }
    AVRational frame_rate() const { return frame_rate_; }  // 25 when the file does not say
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
