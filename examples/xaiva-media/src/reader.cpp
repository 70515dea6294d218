#include "reader.hpp"

namespace xaiva {

Reader::Reader(const std::string& file) : file_(file) {
    check(avformat_open_input(&format_, file.c_str(), nullptr, nullptr), file + " cannot be opened");
    try {
        check(avformat_find_stream_info(format_, nullptr), file + " has no readable streams");
        stream_ = check(av_find_best_stream(format_, AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0), file + " has no video");
        AVStream* stream = format_->streams[stream_];
        const AVCodec* codec = avcodec_find_decoder(stream->codecpar->codec_id);
        if (codec == nullptr) {
            throw Error(file + " uses the codec " + avcodec_get_name(stream->codecpar->codec_id) +
                        ", and this FFmpeg has no decoder for it");
        }
        decoder_.reset(avcodec_alloc_context3(codec));
        frame_.reset(av_frame_alloc());
        packet_.reset(av_packet_alloc());
        if (!decoder_ || !frame_ || !packet_) throw std::bad_alloc();
        check(avcodec_parameters_to_context(decoder_.get(), stream->codecpar), file + ": invalid codec parameters");
        decoder_->pkt_timebase = stream->time_base;
        decoder_->thread_count = 0;  // one thread for each processor
        check(avcodec_open2(decoder_.get(), codec, nullptr), file + ": the decoder does not start");
        const AVRational rate = av_guess_frame_rate(format_, stream, nullptr);
        if (rate.num > 0 && rate.den > 0) frame_rate_ = rate;
    } catch (...) {
        avformat_close_input(&format_);
        throw;
    }
}

Reader::~Reader() { avformat_close_input(&format_); }

bool Reader::next(cv::Mat& picture) {
    if (!receive()) return false;
    convert(picture);
    av_frame_unref(frame_.get());
    return true;
}

// Stores the next decoded frame in frame_. Returns false at the end.
bool Reader::receive() {
    for (;;) {
        const int got = avcodec_receive_frame(decoder_.get(), frame_.get());
        if (got == 0) return true;
        if (got == AVERROR_EOF) return false;
        if (got != AVERROR(EAGAIN)) check(got, file_ + " cannot be decoded");
        if (draining_) return false;
        const int read = av_read_frame(format_, packet_.get());
        if (read == AVERROR_EOF) {
            draining_ = true;
            check(avcodec_send_packet(decoder_.get(), nullptr), file_ + " cannot be decoded to its end");
            continue;
        }
        check(read, file_ + " cannot be read");
        int sent = 0;
        if (packet_->stream_index == stream_) sent = avcodec_send_packet(decoder_.get(), packet_.get());
        av_packet_unref(packet_.get());
        check(sent, file_ + " contains a damaged frame");
    }
}

void Reader::convert(cv::Mat& picture) {
    const auto source = static_cast<AVPixelFormat>(frame_->format);
    scaler_.reset(sws_getCachedContext(scaler_.release(), frame_->width, frame_->height, source, frame_->width,
                                       frame_->height, AV_PIX_FMT_BGR24, SWS_BILINEAR, nullptr, nullptr, nullptr));
    if (!scaler_) throw Error(file_ + ": its pixel format cannot be converted");
    picture.create(frame_->height, frame_->width, CV_8UC3);
    uint8_t* planes[4] = {picture.data, nullptr, nullptr, nullptr};
    const int strides[4] = {static_cast<int>(picture.step), 0, 0, 0};
    check(sws_scale(scaler_.get(), frame_->data, frame_->linesize, 0, frame_->height, planes, strides),
          file_ + ": a frame cannot be converted");
}

}  // namespace xaiva
