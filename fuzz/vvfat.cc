// What a guest writes to a folder that is shown as a disk: the tables and all behind them. Nothing
// outside of the folder may change.
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "block/block.h"
#include "drivers.h"
#include "protocol/vvfat/layout.h"

namespace {

using namespace cairn;
namespace files = std::filesystem;

Task<void> guest(Context& context, std::string name, uint64_t offset, ByteSpan bytes) {
  OpenRequest request;
  request.filename = name;
  request.format = "raw";
  request.flags.writable = true;
  NodePtr node = co_await open_node(context, std::move(request));
  try {
    co_await node->write(offset,
                         bytes.first(std::min<uint64_t>(bytes.size(), node->length() - offset)));
    co_await node->flush();
  } catch (const Error&) {
  }
  co_await node->close();
}

// In memory, where making things stable costs nothing.
files::path make_place() {
  std::string name = "/dev/shm/cairn-fuzz-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) __builtin_trap();
  static files::path place;
  place = name;
  std::atexit([] { files::remove_all(place); });
  return place;
}

void fill(const files::path& folder) {
  files::remove_all(folder);
  files::create_directories(folder / "sub/deep");
  std::ofstream(folder / "a.txt") << "first";
  std::ofstream(folder / "sub/Long name of a file.text") << std::string(9000, 'x');
  std::ofstream(folder / "sub/deep/empty");
  files::create_symlink("a.txt", folder / "link");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Context* context = [] {
    auto* made = new Context({.workers = 1, .engine = EngineKind::kThreads});
    register_drivers(made->registry());
    made->warn = [](std::string_view) {};
    made->temporary_directory = "/dev/shm";
    return made;
  }();
  static const files::path place = make_place();
  if (size < 2) return 0;
  fill(place / "d");
  const bool floppy = data[0] % 2 == 0;
  const auto g =
      floppy ? vvfat::Geometry::floppy_disk(true) : vvfat::Geometry::disk(vvfat::FatType::k12);
  const ByteSpan bytes = std::as_bytes(std::span(data + 1, size - 1));
  try {
    context->runtime().run(guest(
        *context, "fat:" + std::string(floppy ? "floppy:" : "") + "12:rw:" + (place / "d").string(),
        g.fat_offset(), bytes));
  } catch (const Error&) {
  }
  for (const auto& found : files::directory_iterator(place))
    if (found.path().filename() != "d") __builtin_trap();
  if (files::exists(place / "d/.cairn-vvfat")) __builtin_trap();
  return 0;
}
