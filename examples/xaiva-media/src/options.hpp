#pragma once

#include <string>

namespace xaiva {

struct Options {
    std::string input;
    std::string output;
    std::string summary;            // empty: standard output
    std::string encoder = "mpeg4";
    long long frames = 0;           // 0: all
    bool help = false;
    bool version = false;
};

// What the command line says. Throws Error for what it cannot mean, with what would be right.
Options parse(int count, const char* const* words);

extern const char* const kUsage;

}  // namespace xaiva
