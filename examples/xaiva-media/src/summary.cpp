#include "summary.hpp"

#include <algorithm>
#include <iomanip>
#include <locale>
#include <opencv2/core.hpp>
#include <sstream>

#include "build_info.hpp"
#include "ffmpeg_error.hpp"

namespace xaiva {

namespace {

std::string number(double value) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << std::fixed << std::setprecision(4) << value;
    return text.str();
}

const char* boolean(bool value) { return value ? "true" : "false"; }

std::string library(unsigned version) {
    return quoted(std::to_string(AV_VERSION_MAJOR(version)) + "." + std::to_string(AV_VERSION_MINOR(version)) + "." +
                  std::to_string(AV_VERSION_MICRO(version)));
}

std::string range(const Range& range) {
    return "{\"min\": " + number(range.least()) + ", \"mean\": " + number(range.mean()) + ", \"max\": " +
           number(range.most()) + "}";
}

std::string versions(const Inference& inference, const std::string& indent) {
    std::ostringstream text;
    text << "{\n"
         << indent << "  \"xaiva-media\": " << quoted(kVersion) << ",\n"
         << indent << "  \"ffmpeg\": " << quoted(av_version_info()) << ",\n"
         << indent << "  \"libavformat\": " << library(avformat_version()) << ",\n"
         << indent << "  \"libavcodec\": " << library(avcodec_version()) << ",\n"
         << indent << "  \"libswscale\": " << library(swscale_version()) << ",\n"
         << indent << "  \"opencv\": " << quoted(cv::getVersionString()) << ",\n"
         << indent << "  \"tensorrt\": " << (inference.version.empty() ? "null" : quoted(inference.version)) << "\n"
         << indent << "}";
    return text.str();
}

std::string built_with() {
    return std::string("{\"build_token\": ") + boolean(kHadBuildToken) + ", \"license_token\": " +
           boolean(kHadLicenseToken) + "}";
}

// Returns the length in bytes of the UTF-8 character at this position, or 0 if the bytes are not valid.
size_t utf8_length(const std::string& text, size_t at) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(at);
    const size_t length = first < 0x80 ? 1 : first >= 0xC2 && first < 0xE0 ? 2 : first >= 0xE0 && first < 0xF0 ? 3
                          : first >= 0xF0 && first < 0xF5 ? 4 : 0;
    if (length == 0 || at + length > text.size()) return 0;
    for (size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xC0) != 0x80) return 0;
    }
    return length;
}

}  // namespace

void Range::add(double value) {
    least_ = count_ == 0 ? value : std::min(least_, value);
    most_ = count_ == 0 ? value : std::max(most_, value);
    sum_ += value;
    ++count_;
}

void Summary::add(const FrameStats& stats) {
    ++frames;
    if (!stats.boxes.empty()) ++frames_with_motion;
    boxes += static_cast<int64_t>(stats.boxes.size());
    brightness.add(stats.brightness);
    edges.add(stats.edges);
    motion.add(stats.motion);
}

std::string quoted(const std::string& text) {
    std::ostringstream result;
    result << '"';
    for (size_t i = 0; i < text.size();) {
        const size_t length = utf8_length(text, i);
        const char c = text[i];
        if (length == 0) {
            result << '?';
        } else if (c == '"' || c == '\\') {
            result << '\\' << c;
        } else if (length == 1 && static_cast<unsigned char>(c) < 0x20) {
            result << "\\u" << std::hex << std::setw(4) << std::setfill('0') << static_cast<int>(c) << std::dec;
        } else {
            result << text.substr(i, length);
        }
        i += length == 0 ? 1 : length;
    }
    result << '"';
    return result.str();
}

std::string versions_json(const Inference& inference) {
    return "{\n  \"format\": 1,\n  \"versions\": " + versions(inference, "  ") + ",\n  \"built_with\": " + built_with() +
           "\n}\n";
}

std::string to_json(const Summary& s, const Inference& inference) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << "{\n  \"format\": 1,\n"
         << "  \"versions\": " << versions(inference, "  ") << ",\n"
         << "  \"built_with\": " << built_with() << ",\n"
         << "  \"input\": {\"file\": " << quoted(s.input) << ", \"container\": " << quoted(s.container)
         << ", \"codec\": " << quoted(s.codec) << ", \"width\": " << s.width << ", \"height\": " << s.height
         << ", \"fps\": " << number(s.frame_rate) << "},\n"
         << "  \"output\": {\"file\": " << quoted(s.output) << ", \"encoder\": " << quoted(s.encoder) << "},\n"
         << "  \"frames\": " << s.frames << ",\n"
         << "  \"frames_with_motion\": " << s.frames_with_motion << ",\n"
         << "  \"boxes\": " << s.boxes << ",\n"
         << "  \"seconds\": " << number(s.seconds) << ",\n"
         << "  \"fps\": " << number(s.seconds > 0 ? static_cast<double>(s.frames) / s.seconds : 0) << ",\n"
         << "  \"brightness\": " << range(s.brightness) << ",\n"
         << "  \"edges\": " << range(s.edges) << ",\n"
         << "  \"motion\": " << range(s.motion) << ",\n"
         << "  \"tensorrt\": {\"compiled\": " << boolean(inference.compiled) << ", \"ready\": "
         << boolean(inference.ready) << ", \"reason\": " << quoted(inference.reason) << "}\n}\n";
    return text.str();
}

}  // namespace xaiva
