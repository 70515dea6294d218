// Writes a clip with a moving square, reads it, and checks the results.
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <opencv2/imgproc.hpp>

#include "analyser.hpp"
#include "inference.hpp"
#include "options.hpp"
#include "reader.hpp"
#include "summary.hpp"
#include "writer.hpp"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
    if (!ok) {
        std::cerr << "FAILED: " << what << '\n';
        ++failures;
    }
}

template <class F>
void expect_error(F&& run, const std::string& words) {
    try {
        run();
        expect(false, "an error with \"" + words + "\"");
    } catch (const xaiva::Error& error) {
        expect(std::string(error.what()).find(words) != std::string::npos, words + " in: " + error.what());
    }
}

}  // namespace

int main(int count, char** words) {
    const std::string folder = count > 1 ? words[1] : ".";
    const std::string clip = folder + "/self-test.mkv";
    constexpr int kFrames = 20;
    {
        xaiva::Writer writer(clip, "mpeg4", 160, 120, AVRational{30000, 1001});
        for (int i = 0; i < kFrames; ++i) {
            cv::Mat picture(120, 160, CV_8UC3, cv::Scalar(40, 40, 40));
            cv::rectangle(picture, cv::Rect(5 + 5 * i, 40, 20, 20), cv::Scalar(250, 250, 250), cv::FILLED);
            writer.add(picture);
        }
        writer.finish();
    }
    xaiva::Reader reader(clip);
    expect(reader.codec() == "mpeg4", "codec mpeg4, found " + reader.codec());
    expect(std::abs(av_q2d(reader.frame_rate()) - 29.97) < 0.01, "29.97 frames per second");
    xaiva::Analyser analyser;
    xaiva::Summary summary;
    cv::Mat picture;
    while (reader.next(picture)) {
        const xaiva::FrameStats stats = analyser.look(picture);
        xaiva::annotate(picture, stats, summary.frames);
        summary.add(stats);
    }
    expect(summary.frames == kFrames, "number of frames, found " + std::to_string(summary.frames));
    expect(summary.frames_with_motion == kFrames - 1, "motion in all frames except the first");
    expect(summary.motion.most() > 0.005 && summary.motion.most() < 0.5, "share of motion");
    expect(std::abs(summary.brightness.mean() - 0.18) < 0.1, "brightness");

    expect_error([&] { xaiva::Reader absent(folder + "/absent.mkv"); }, "absent.mkv cannot be opened");
    expect_error([&] { xaiva::Writer bad(folder + "/x.mkv", "no-such", 16, 16, AVRational{25, 1}); }, "no encoder");
    expect_error([&] { xaiva::Writer bad(folder + "/x.nothing", "mpeg4", 16, 16, AVRational{25, 1}); }, "container");
    expect_error([&] { xaiva::Writer bad("/no/such/x.mkv", "mpeg4", 16, 16, AVRational{25, 1}); }, "cannot be written");
    const char* same[] = {"x", "--input", "a.mkv", "--output", "a.mkv"};
    expect_error([&] { xaiva::parse(5, same); }, "the same file");
    const char* many[] = {"x", "--frames", "1e3"};
    expect_error([&] { xaiva::parse(3, many); }, "not a number");

    expect(xaiva::quoted("a\"b\\c\n\xff") == "\"a\\\"b\\\\c\\u000a?\"", "quoting: " + xaiva::quoted("a\"b\\c\n\xff"));
    expect(xaiva::quoted("\xea\xb0\x80") == "\"\xea\xb0\x80\"", "UTF-8 is unchanged");
    expect(xaiva::inference_version(8601) == "8.6.1", "TensorRT 8.6.1");
    expect(xaiva::inference_version(101300) == "10.13.0", "TensorRT 10.13.0");
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
