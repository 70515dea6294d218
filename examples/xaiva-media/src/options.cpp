#include "options.hpp"

#include <map>

#include "ffmpeg_error.hpp"

namespace xaiva {

const char* const kUsage =
    "usage: xaiva-media --input FILE --output FILE [--summary FILE]\n"
    "\n"
    "Detects motion in a video and writes the video with the motion marked.\n"
    "\n"
    "  --input FILE      video to read\n"
    "  --output FILE     video to write; .mkv, .avi or .mp4\n"
    "  --summary FILE    JSON summary (default: standard output)\n"
    "  --encoder NAME    encoder of the output (default: mpeg4)\n"
    "  --frames N        stop after N frames\n"
    "  --version         print the versions of this program and its libraries as JSON\n"
    "  --help            print this text\n";

Options parse(int count, const char* const* words) {
    Options options;
    const std::map<std::string, std::string*> texts = {{"--input", &options.input},
                                                       {"--output", &options.output},
                                                       {"--summary", &options.summary},
                                                       {"--encoder", &options.encoder}};
    for (int i = 1; i < count; ++i) {
        std::string word = words[i];
        if (word == "--help" || word == "-h") {
            options.help = true;
            continue;
        }
        if (word == "--version") {
            options.version = true;
            continue;
        }
        if (texts.count(word) == 0 && word != "--frames") throw Error("unknown option " + word + "; see --help");
        if (i + 1 >= count || std::string(words[i + 1]).empty()) throw Error(word + " needs a value; see --help");
        const std::string value = words[++i];
        if (word != "--frames") {
            *texts.at(word) = value;
            continue;
        }
        if (value.find_first_not_of("0123456789") != std::string::npos || value.size() > 12) {
            throw Error("--frames " + value + " is not a number of frames");
        }
        options.frames = std::stoll(value);
    }
    if (options.help || options.version) return options;
    if (options.input.empty()) throw Error("--input is missing; see --help");
    if (options.output.empty()) throw Error("--output is missing; see --help");
    if (options.input == options.output) throw Error("--input and --output are the same file");
    return options;
}

}  // namespace xaiva
