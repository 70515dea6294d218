#pragma once

#include <memory>
#include <stdexcept>
#include <string>

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/frame.h>
#include <libswscale/swscale.h>
}

namespace xaiva {

// An error with a message for the user.
class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Returns FFmpeg's message for an error code.
std::string ffmpeg_message(int code);

// Throws Error ("WHAT: FFmpeg's message") if the code is negative. Otherwise, returns the code.
int check(int code, const std::string& what);

// Calls the function that frees an object of FFmpeg.
struct Free {
    void operator()(AVCodecContext* p) const { avcodec_free_context(&p); }
    void operator()(AVFrame* p) const { av_frame_free(&p); }
    void operator()(AVPacket* p) const { av_packet_free(&p); }
    void operator()(SwsContext* p) const { sws_freeContext(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

}  // namespace xaiva
