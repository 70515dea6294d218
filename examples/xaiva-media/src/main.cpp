// xaiva-media: detect motion in a video, write the video with the motion marked, and write a JSON summary.
#include <chrono>
#include <exception>
#include <fstream>
#include <iostream>

#include "analyser.hpp"
#include "inference.hpp"
#include "options.hpp"
#include "reader.hpp"
#include "summary.hpp"
#include "writer.hpp"

namespace {

xaiva::Summary process(const xaiva::Options& options) {
    const auto start = std::chrono::steady_clock::now();
    xaiva::Reader reader(options.input);
    xaiva::Summary summary;
    summary.input = options.input;
    summary.container = reader.container();
    summary.codec = reader.codec();
    summary.output = options.output;
    summary.encoder = options.encoder;
    summary.width = reader.width();
    summary.height = reader.height();
    summary.frame_rate = av_q2d(reader.frame_rate());

    xaiva::Writer writer(options.output, options.encoder, reader.width(), reader.height(), reader.frame_rate());
    xaiva::Analyser analyser;
    cv::Mat picture;
    while ((options.frames == 0 || summary.frames < options.frames) && reader.next(picture)) {
        if (picture.cols != summary.width || picture.rows != summary.height) {
            throw xaiva::Error(options.input + ": the frame size changes within the video");
        }
        const xaiva::FrameStats stats = analyser.look(picture);
        xaiva::annotate(picture, stats, summary.frames);
        writer.add(picture);
        summary.add(stats);
    }
    if (summary.frames == 0) throw xaiva::Error(options.input + " contains no frames");
    writer.finish();
    summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return summary;
}

void write_text(const std::string& file, const std::string& text) {
    if (file.empty()) {
        std::cout << text << std::flush;
        return;
    }
    std::ofstream stream(file, std::ios::binary | std::ios::trunc);
    stream << text;
    stream.close();
    if (!stream) throw xaiva::Error(file + " cannot be written");
}

}  // namespace

int main(int count, char** words) {
    try {
        const xaiva::Options options = xaiva::parse(count, words);
        if (options.help) {
            std::cout << xaiva::kUsage;
            return 0;
        }
        if (options.version) {
            std::cout << xaiva::versions_json(xaiva::probe_inference());
            return 0;
        }
        av_log_set_level(AV_LOG_ERROR);
        write_text(options.summary, xaiva::to_json(process(options), xaiva::probe_inference()));
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "xaiva-media: " << error.what() << '\n';
        return 1;
    }
}
