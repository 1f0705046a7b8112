// The input is a list of changes to a good image (place, length, bytes), after which the checksums
// of headers and region tables are set right: without that nothing behind them would be reached.
#include <fstream>
#include <iterator>

#include "base/crc32c.h"
#include "image.h"

namespace {

using namespace cairn;

std::vector<std::byte> good_image() {
  char name[] = "/tmp/fuzz-vhdx-XXXXXX";
  const int fd = ::mkstemp(name);
  if (fd < 0) __builtin_trap();
  Context context({.workers = 1, .engine = EngineKind::kThreads});
  register_drivers(context.registry());
  CreateOptions create;
  create.filename = name;
  create.format = "vhdx";
  create.size = 4 << 20;
  create.options = Options::parse_list("block_size=1M");
  context.runtime().run(create_image(context, std::move(create)));
  context.runtime().run([](Context& in, std::string path) -> Task<void> {
    OpenRequest request;
    request.filename = path;
    request.format = "vhdx";
    request.flags.writable = true;
    NodePtr node = co_await open_node(in, std::move(request));
    const std::vector<std::byte> data(5000, std::byte{1});
    co_await node->write(2000, data);
    co_await node->flush();
    co_await node->close();
  }(context, name));
  std::ifstream in(name, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  ::close(fd);
  ::unlink(name);
  const ByteSpan all = bytes_of(bytes);
  return {all.begin(), all.end()};
}

void seal(MutableByteSpan part) {
  store_le<uint32_t>(part, 4, 0);
  store_le<uint32_t>(part, 4, crc32c(part));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<std::byte> good = good_image();
  std::vector<std::byte> image = good;
  const ByteSpan input(reinterpret_cast<const std::byte*>(data), size);
  for (size_t at = 0; at + 5 < size;) {
    const size_t place = load_le<uint32_t>(input, at) % image.size();
    const size_t length =
        std::min({std::to_integer<size_t>(input[at + 4]) + 1, size - at - 5, image.size() - place});
    std::memcpy(image.data() + place, data + at + 5, length);
    at += 5 + length;
  }
  for (const size_t header : {64 << 10, 128 << 10})
    seal(MutableByteSpan(image).subspan(header, 4096));
  for (const size_t table : {192 << 10, 256 << 10})
    seal(MutableByteSpan(image).subspan(table, 64 << 10));
  return fuzzing::run_image("vhdx", reinterpret_cast<const uint8_t*>(image.data()), image.size());
}
