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

// Parses the command line. Throws Error if it is invalid.
Options parse(int count, const char* const* words);

extern const char* const kUsage;

}  // namespace xaiva
