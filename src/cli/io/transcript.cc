#include "cli/io/transcript.h"

#include <utility>

namespace cairn::cli::io {
namespace {

Transcript* g_current = nullptr;

}  // namespace

Transcript::Transcript() { g_current = this; }
Transcript::~Transcript() { g_current = nullptr; }
Transcript* Transcript::current() { return g_current; }

size_t Transcript::command() { return g_current != nullptr ? g_current->at_ : 0; }

Transcript::Belonging::Belonging(size_t command) : before_(Transcript::command()) {
  if (g_current != nullptr) g_current->at_ = command;
}

Transcript::Belonging::~Belonging() {
  if (g_current != nullptr) g_current->at_ = before_;
}

void Transcript::begin(const std::string& line) {
  entries_.emplace_back().line = line;
  at_ = entries_.size() - 1;
}

void Transcript::end(bool succeeded) { entries_.back().succeeded = succeeded; }

void Transcript::text(std::string_view text) {
  if (!entries_.empty()) entries_[at_].output += text;
}

void Transcript::outcome(const Outcome& outcome) {
  if (entries_.empty()) return;
  Value result = Value::object();
  result.set("operation", std::string(outcome.verb));
  result.set("offset", outcome.offset);
  result.set("bytes", outcome.done);
  result.set("asked", outcome.asked);
  result.set("seconds", outcome.seconds);
  entries_[at_].results.push_back(std::move(result));
}

Value Transcript::commands() const {
  Value list = Value::array();
  for (const Entry& entry : entries_) {
    Value one = Value::object();
    one.set("command", entry.line);
    one.set("succeeded", entry.succeeded);
    one.set("output", entry.output);
    one.set("results", entry.results);
    list.push_back(std::move(one));
  }
  return list;
}

void print(std::string_view text) {
  if (Transcript* transcript = Transcript::current())
    transcript->text(text);
  else
    cli::print(text);
}

}  // namespace cairn::cli::io
