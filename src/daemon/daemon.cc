#include "daemon/daemon.h"

#include <poll.h>

#include <cctype>
#include <chrono>

#include "base/version.h"
#include "block/capabilities/disk_reporter.h"
#include "block/throttle_group.h"
#include "daemon/commands/commands.h"
#include "daemon/job_arguments.h"
#include "daemon/journal/job_journal.h"
#include "daemon/monitor.h"
#include "daemon/qmp_error.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// What the end may take before it is reported as overdue.
constexpr auto kEndTime = 10s;

Value timestamp() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  Value stamp = Value::object();
  stamp.set("seconds", static_cast<int64_t>(micros / 1'000'000));
  stamp.set("microseconds", static_cast<int64_t>(micros % 1'000'000));
  return stamp;
}

// Events that come with requests are limited; those with one key together. Empty: not limited.
std::string limit_key(std::string_view event, const Value& data) {
  if (event == "QUORUM_FAILURE") return std::string(event);
  if (event == "QUORUM_REPORT_BAD") return data.find("node-name")->scalar_text();
  return {};
}

void emit_report(Daemon& daemon, const std::string& set, const DiskReport& report) {
  constexpr uint64_t kSector = 512;
  const uint64_t first = report.offset / kSector;
  const uint64_t end = (report.offset + report.length + kSector - 1) / kSector;
  Value data = Value::object();
  data.set("sector-num", first);
  data.set("sectors-count", end - first);
  if (report.disk.empty()) {
    data.set("reference", set);
    daemon.emit("QUORUM_FAILURE", std::move(data));
    return;
  }
  data.set("node-name", report.disk);
  data.set("type", report.request == DiskReport::Request::kRead    ? "read"
                   : report.request == DiskReport::Request::kWrite ? "write"
                                                                   : "flush");
  if (report.error) data.set("error", *report.error);
  daemon.emit("QUORUM_REPORT_BAD", std::move(data));
}

// Commands after which jobs are to be continued in another way.
bool changes_jobs(std::string_view name) {
  return name.ends_with("job-pause") || name.ends_with("job-resume") ||
         name.ends_with("job-dismiss") || name == "block-job-set-speed";
}

// What ARGUMENTS name, for the log, which gets nothing else of them: they may be secret.
Value names_in(const Value& arguments) {
  Value names = Value::object();
  for (const char* key : {"node-name", "id", "job-id", "device"})
    if (const std::string text = text_of(arguments, key); !text.empty()) names.set(key, text);
  return names;
}

}  // namespace

Daemon::Daemon(Context& context, CancelSource& stop, DaemonOptions options)
    : context_(context),
      stop_(stop),
      options_(std::move(options)),
      chardevs_(context, options_.streams, options_.sockets),
      graph_(context),
      jobs_(context, job_events(*this)),
      nbd_(context, options_.sockets, options_.log),
      exports_(*this),
      metrics_(*this),
      started_at_(static_cast<uint64_t>(
          std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count())),
      limit_([this](const Value& event) { send(event); }) {
  graph_.set_listener([this](Node& node) {
    auto* reporter = node.as<DiskReporter>();
    if (reporter == nullptr) return;
    reporter->report_to([this, set = node.node_name()](const DiskReport& report) {
      emit_report(*this, set, report);
    });
  });
}

Daemon::~Daemon() = default;

bool Daemon::knows(std::string_view name) { return find_command(name) != nullptr; }

Task<Value> Daemon::execute(std::string name, Value arguments, Form form) {
  if (name == kRestartCommand && options_.start_successor) {
    const auto turn = co_await turn_.lock();
    if (ending_) throw Error(ErrorKind::kCancelled, "The daemon is ending");
    Value result = co_await restart(*this);
    co_return result;
  }
  const Command* command = find_command(name);
  if (command == nullptr) throw QmpError::not_found("The command " + name + " has not been found");
  const std::string_view type = Schema::get().find_command(name)->argument;
  Value checked = checked_value(type, std::move(arguments), form);
  const auto turn = co_await turn_.lock();
  if (ending_) throw Error(ErrorKind::kCancelled, "The daemon is ending");
  std::exception_ptr failure;
  Value result;
  const Value names = options_.log ? names_in(checked) : Value();
  const bool recipe = JobRecipes::concerns(name);
  const Value kept = recipe ? checked : Value();
  try {
    result = co_await command->run(*this, std::move(checked));
    log_command(name, names, nullptr);
    if (recipe) job_recipes_.note(name, kept, jobs_.find(text_of(kept, "job-id")));
  } catch (const Error& error) {
    log_command(name, names, &error);
    failure = std::current_exception();
  }
  if (failure) std::rethrow_exception(failure);
  if (journal_) co_await journal_->note_new();
  if (journal_ && changes_jobs(name)) co_await journal_->write();
  co_return result;
}

Task<void> Daemon::keep_jobs(std::string path, bool from_other) {
  auto journal = std::make_shared<JobJournal>(*this, std::move(path));
  co_await journal->open(from_other);
  journal_ = std::move(journal);
}

live::ProgressStorePtr Daemon::progress_store() const { return journal_; }

// What clients ask for that changes something, with the names that say to what.
void Daemon::log_command(const std::string& name, const Value& arguments, const Error* error) {
  if (!options_.log || name.starts_with("query-")) return;
  Value members = event_members("command", name);
  for (const auto& [key, shown] : {std::pair<const char*, const char*>{"node-name", "node"},
                                   {"id", "id"},
                                   {"job-id", "job"},
                                   {"device", "device"}})
    if (const std::string text = text_of(arguments, key); !text.empty()) members.set(shown, text);
  if (error != nullptr) members.set("message", error->message());
  options_.log->write(error == nullptr ? "info" : "warning",
                      error == nullptr ? "command" : "command-failed", members);
}

void Daemon::log_event(std::string_view event, const Value& data) {
  if (!options_.log) return;
  std::string name(event);
  for (char& c : name)
    c = c == '_' ? '-' : static_cast<char>(tolower(static_cast<unsigned char>(c)));
  Value members = Value::object();
  const bool of_export = event.starts_with("BLOCK_EXPORT");
  const bool of_job = event.starts_with("BLOCK_JOB") || event.starts_with("JOB");
  for (const auto& [key, value] : *data.get_if<Value::Object>())
    members.set(of_job && (key == "id" || key == "device") ? "job"
                : of_export && key == "id"                 ? "export"
                                                           : key,
                value);
  const bool bad = event == "BLOCK_JOB_ERROR" || data.find("error") != nullptr;
  options_.log->write(bad ? "error" : "info", name, members);
}

void Daemon::emit(std::string_view event, Value data) {
  if (jobs_muted_ && (event.starts_with("JOB_") || event.starts_with("BLOCK_JOB_"))) return;
  Value message = Value::object();
  message.set("timestamp", timestamp());
  message.set("event", event);
  message.set("data", std::move(data));
  const std::string key = limit_key(event, *message.find("data"));
  if (key.empty())
    send(message);
  else
    limit_.post(key, std::move(message));
}

void Daemon::send(const Value& event) {
  log_event(text_of(event, "event"), *event.find("data"));
  std::lock_guard lock(mutex_);
  for (const auto& monitor : monitors_) monitor->send_event(event);
}

void Daemon::add_monitor(const std::string& chardev, bool pretty) {
  Chardev* device = chardevs_.find(chardev);
  if (device == nullptr) invalid("chardev \"" + chardev + "\" not found");
  Chardev& place = device->attach();
  std::lock_guard lock(mutex_);
  monitors_.push_back(std::make_unique<Monitor>(*this, place, pretty));
  if (running_ && !ending_) serving_.spawn(monitors_.back()->run());
}

Value Daemon::describe_monitors() const {
  Value list = Value::array();
  for (const auto& monitor : monitors_) {
    Value one = Value::object();
    one.set("chardev", monitor->chardev().id());
    one.set("pretty", monitor->pretty());
    list.push_back(std::move(one));
  }
  return list;
}

void Daemon::leave_to_another() {
  options_.sockets.keep(true);
  left_ = true;
  stop_.request();
}

Task<void> Daemon::run() {
  running_ = true;
  for (const auto& monitor : monitors_) serving_.spawn(monitor->run());
  serving_.spawn(limit_.run());
  serving_.spawn(options_.manager.keep_alive(alive_));
  if (journal_) serving_.spawn(journal_->serve());
  options_.manager.tell("READY=1");
  if (options_.log) options_.log->write("info", "started", event_members("version", version()));
  co_await await_ready(stop_.descriptor(), POLLIN);
}

Task<void> Daemon::watch(Nap& nap) {
  co_await nap.sleep_for(kEndTime);
  if (!nap.woken()) options_.overdue();
}

Task<void> Daemon::close_all() {
  // Requests that wait for their turn in a budget must end, also those that a command waits for.
  for (const Objects::Entry& entry : context_.objects().list())
    if (const auto group = std::dynamic_pointer_cast<ThrottleGroup>(entry.object))
      group->set_limits({});
  const auto turn = co_await turn_.lock();
  ending_ = true;
  if (journal_) {
    // Jobs that are kept end when nobody writes to their disks any more.
    co_await exports_.remove_all([](const LiveExport&) { return true; });
    co_await nbd_.stop();
    co_await journal_->hold();
  }
  co_await jobs_.shutdown();
  co_await exports_.remove_all([](const LiveExport&) { return true; });
  co_await nbd_.stop();
  co_await tasks_.join();
  co_await metrics_.stop();
  const auto change = co_await graph_.change();
  try {
    co_await graph_.close();
  } catch (const Error& error) {
    context_.warn(error.message());
  }
  if (journal_) co_await journal_->release();
}

Task<void> Daemon::shut_down() {
  // To the manager, another process is the daemon.
  if (!left_) options_.manager.tell("STOPPING=1");
  if (options_.log) options_.log->write("info", "stopping", Value::object());
  Nap nap;
  TaskGroup watching;
  watching.spawn(watch(nap));
  co_await close_all();
  for (const auto& say : last_words_) say();
  for (const auto& monitor : monitors_) monitor->stop();
  chardevs_.close_all();
  limit_.stop();
  co_await alive_.wake();
  if (journal_) co_await journal_->stop();
  co_await serving_.join();
  co_await chardevs_.join();
  co_await nap.wake();
  co_await watching.join();
  if (options_.log) options_.log->write("info", "stopped", Value::object());
}

}  // namespace cairn::daemon
