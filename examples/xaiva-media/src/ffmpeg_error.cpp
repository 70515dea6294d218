#include "ffmpeg_error.hpp"

extern "C" {
#include <libavutil/error.h>
}

namespace xaiva {

std::string ffmpeg_message(int code) {
    char text[AV_ERROR_MAX_STRING_SIZE] = {};
    av_strerror(code, text, sizeof text);
    return text;
}

int check(int code, const std::string& what) {
    if (code < 0) throw Error(what + ": " + ffmpeg_message(code));
    return code;
}

}  // namespace xaiva
