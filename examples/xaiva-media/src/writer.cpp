#include "writer.hpp"

namespace xaiva {

Writer::Writer(const std::string& file, const std::string& encoder, int width, int height, AVRational frame_rate)
    : file_(file) {
    const AVCodec* codec = avcodec_find_encoder_by_name(encoder.c_str());
    if (codec == nullptr) throw Error("this FFmpeg has no encoder \"" + encoder + "\"; see ffmpeg -encoders");
    check(avformat_alloc_output_context2(&format_, nullptr, nullptr, file.c_str()),
          file + ": this FFmpeg has no container for this file name (.mkv, .avi, .mp4)");
    try {
        stream_ = avformat_new_stream(format_, nullptr);
        encoder_.reset(avcodec_alloc_context3(codec));
        frame_.reset(av_frame_alloc());
        packet_.reset(av_packet_alloc());
        if (stream_ == nullptr || !encoder_ || !frame_ || !packet_) throw std::bad_alloc();

        encoder_->width = width;
        encoder_->height = height;
        encoder_->pix_fmt = encoder == "mjpeg" ? AV_PIX_FMT_YUVJ420P : AV_PIX_FMT_YUV420P;
        // MPEG-4 stores the time base in 16 bits.
        av_reduce(&frame_rate.num, &frame_rate.den, frame_rate.num, frame_rate.den, 65535);
        encoder_->framerate = frame_rate;
        encoder_->time_base = AVRational{frame_rate.den, frame_rate.num};
        encoder_->gop_size = 25;
        encoder_->flags |= AV_CODEC_FLAG_QSCALE;
        encoder_->global_quality = 4 * FF_QP2LAMBDA;
        if ((format_->oformat->flags & AVFMT_GLOBALHEADER) != 0) encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
        check(avcodec_open2(encoder_.get(), codec, nullptr), "the encoder " + encoder + " does not start");
        check(avcodec_parameters_from_context(stream_->codecpar, encoder_.get()), file + ": the encoder's parameters");
        stream_->time_base = encoder_->time_base;
        stream_->avg_frame_rate = frame_rate;

        check(avio_open(&format_->pb, file.c_str(), AVIO_FLAG_WRITE), file + " cannot be written");
        check(avformat_write_header(format_, nullptr), file + ": the header cannot be written");

        frame_->format = encoder_->pix_fmt;
        frame_->width = width;
        frame_->height = height;
        check(av_frame_get_buffer(frame_.get(), 0), "no memory for a picture");
        scaler_.reset(sws_getContext(width, height, AV_PIX_FMT_BGR24, width, height, encoder_->pix_fmt, SWS_BILINEAR,
                                     nullptr, nullptr, nullptr));
        if (!scaler_) throw Error("frames of this size cannot be converted");
    } catch (...) {
        close();
        throw;
    }
}

Writer::~Writer() { close(); }

void Writer::add(const cv::Mat& picture) {
    CV_Assert(picture.type() == CV_8UC3 && picture.cols == frame_->width && picture.rows == frame_->height);
    check(av_frame_make_writable(frame_.get()), "no memory for a picture");
    const uint8_t* planes[4] = {picture.data, nullptr, nullptr, nullptr};
    const int strides[4] = {static_cast<int>(picture.step), 0, 0, 0};
    check(sws_scale(scaler_.get(), planes, strides, 0, picture.rows, frame_->data, frame_->linesize),
          "a frame cannot be converted");
    frame_->pts = count_++;
    frame_->quality = encoder_->global_quality;
    drain(frame_.get());
}

void Writer::finish() {
    drain(nullptr);
    check(av_write_trailer(format_), file_ + ": the trailer cannot be written");
    check(avio_closep(&format_->pb), file_ + " cannot be closed (is the disk full?)");
    close();
}

// Sends a frame, or the end, to the encoder and writes every packet that it returns.
void Writer::drain(const AVFrame* frame) {
    check(avcodec_send_frame(encoder_.get(), frame), "a picture cannot be encoded");
    for (;;) {
        const int got = avcodec_receive_packet(encoder_.get(), packet_.get());
        if (got == AVERROR(EAGAIN) || got == AVERROR_EOF) return;
        check(got, "a picture cannot be encoded");
        av_packet_rescale_ts(packet_.get(), encoder_->time_base, stream_->time_base);
        packet_->stream_index = stream_->index;
        check(av_interleaved_write_frame(format_, packet_.get()), file_ + " cannot be written (is the disk full?)");
    }
}

void Writer::close() {
    if (format_ == nullptr) return;
    if (format_->pb != nullptr) avio_closep(&format_->pb);
    avformat_free_context(format_);
    format_ = nullptr;
}

}  // namespace xaiva
