#include "control/control_tables.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "base/size.h"

namespace cairn::control {
namespace {

using Words = std::vector<std::string>;

std::string cell(const Value& row, std::string_view name) {
  const Value* value = row.find(name);
  return value == nullptr ? "" : value->scalar_text();
}

uint64_t bytes_in(const Value& row, std::string_view name) {
  const Value* value = row.find(name);
  if (value == nullptr) return 0;
  if (const auto* large = value->get_if<uint64_t>()) return *large;
  const auto* number = value->get_if<int64_t>();
  return number == nullptr || *number < 0 ? 0 : static_cast<uint64_t>(*number);
}

// Columns as wide as what is in them. What the daemon calls things is printed without characters
// that a terminal obeys.
void print_table(const Session& session, const std::vector<Words>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Words& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const Words& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += fmt::format("{:{}}  ", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    for (char& c : line)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    text += line + "\n";
  }
  session.say(text);
}

template <class Row>
void print_rows(const Session& session, const Value& list, Words header, const Row& row_of) {
  const auto* all = list.get_if<Value::Array>();
  if (all == nullptr) throw Error(ErrorKind::kIo, "The daemon gives no list");
  std::vector<Words> rows = {std::move(header)};
  for (const Value& one : *all) rows.push_back(row_of(one));
  print_table(session, rows);
}

}  // namespace

void show_jobs(const Session& session, const Value& list) {
  print_rows(session, list, {"job", "type", "status", "done", "error"}, [](const Value& job) {
    const uint64_t done = bytes_in(job, "current-progress");
    const uint64_t total = bytes_in(job, "total-progress");
    const double share =
        total == 0 ? 0 : 100.0 * static_cast<double>(done) / static_cast<double>(total);
    return Words{cell(job, "id"), cell(job, "type"), cell(job, "status"),
                 fmt::format("{:.1f} %", share), cell(job, "error")};
  });
}

void show_nodes(const Session& session, const Value& list) {
  print_rows(session, list, {"node", "driver", "size", "access", "file"}, [](const Value& node) {
    const Value* image = node.find("image");
    const uint64_t size = image == nullptr ? 0 : bytes_in(*image, "virtual-size");
    return Words{cell(node, "node-name"), cell(node, "drv"), human_size(size),
                 cell(node, "ro") == "true" ? "read" : "write", cell(node, "file")};
  });
}

void show_exports(const Session& session, const Value& list) {
  print_rows(session, list, {"export", "type", "node", "state"}, [](const Value& one) {
    return Words{cell(one, "id"), cell(one, "type"), cell(one, "node-name"),
                 cell(one, "shutting-down") == "true" ? "ending" : "served"};
  });
}

void print_event(const Session& session, const Value& event) {
  std::string line = event.compact();
  if (!session.json) {
    line = cell(event, "event");
    const Value* data = event.find("data");
    const auto* all = data == nullptr ? nullptr : data->get_if<Value::Object>();
    if (all != nullptr)
      for (const auto& [name, value] : *all) line += fmt::format("  {}={}", name, value.compact());
  }
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

}  // namespace cairn::control
