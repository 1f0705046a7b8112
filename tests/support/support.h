// What the unit tests share: a context with all drivers and a folder that goes away.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "block/block.h"
#include "drivers.h"
#include "engine.h"

namespace cairn::testing_support {

class Folder {
 public:
  Folder() {
    std::string name = std::filesystem::temp_directory_path() / "cairn-test-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

class World {
 public:
  explicit World(unsigned workers = 2)
      : context({.workers = workers, .engine = engine_under_test()}) {
    register_drivers(context.registry());
    context.warn = [](std::string_view) {};
  }
  template <class T>
  T run(Task<T> task) {
    return context.runtime().run(std::move(task));
  }
  void add_secret(const std::string& id, const std::string& data) {
    Options properties;
    properties.set("id", id);
    properties.set("data", data);
    context.add_object("secret", std::move(properties));
  }
  void create(const std::string& name, const std::string& format, uint64_t size,
              const std::string& options = {}) {
    CreateOptions request;
    request.filename = name;
    request.format = format;
    request.size = size;
    request.overwrite = true;
    request.options = Options::parse_list(options);
    // "@" stands for a file beside the image.
    if (request.options.string("data_file") == "@")
      request.options.set("data_file", name + ".data");
    run(create_image(context, std::move(request)));
  }
  NodePtr open(const std::string& name, const std::string& format, bool writable,
               const std::string& options = {}) {
    OpenRequest request;
    request.filename = name;
    request.options = Options::parse_list(options);
    request.format = format;
    request.flags.writable = writable;
    request.flags.resize = writable;
    request.flags.discard_unmap = true;
    return run(open_node(context, std::move(request)));
  }
  void close(NodePtr& node) {
    run(node->close());
    node.reset();
  }
  Context context;
};

inline std::vector<std::byte> random_bytes(std::mt19937_64& random, size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& one : bytes) one = static_cast<std::byte>(random());
  return bytes;
}

// The message of the error that FUNCTION throws; empty when it throws none.
template <class F>
std::string error_of(F function) {
  try {
    function();
  } catch (const Error& error) {
    return error.message();
  }
  return {};
}

}  // namespace cairn::testing_support
