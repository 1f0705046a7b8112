#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <map>

#include "base/version.h"
#include "block/capabilities/cache_reporter.h"
#include "block/driver.h"
#include "daemon/daemon.h"
#include "daemon/metrics/exposition.h"
#include "daemon/metrics/metrics.h"

namespace cairn::daemon {
namespace {

using live::JobInfo;
using live::JobStatus;

constexpr RequestKind kAllKinds[kRequestKinds] = {RequestKind::kRead, RequestKind::kWrite,
                                                  RequestKind::kZero, RequestKind::kDiscard,
                                                  RequestKind::kFlush};

// Something whose requests are counted: a node or an export, with its name.
struct Counted {
  std::string name;
  std::array<RequestSums, kRequestKinds> sums;
};

Counted counted(std::string name, const RequestCounts& counts) {
  Counted one;
  one.name = std::move(name);
  for (const RequestKind kind : kAllKinds) one.sums[static_cast<size_t>(kind)] = counts.sums(kind);
  return one;
}

void write_durations(Exposition& out, Label owner, std::string_view kind, const RequestSums& sums) {
  uint64_t so_far = 0;
  for (size_t i = 0; i < kDurationClasses; ++i) {
    so_far += sums.by_duration[i];
    const std::string bound =
        i < kDurationBounds.size() ? seconds_text(kDurationBounds[i]) : "+Inf";
    out.sample({owner, {"request", kind}, {"le", bound}}, so_far, "_bucket");
  }
  out.sample_seconds({owner, {"request", kind}}, sums.nanoseconds, "_sum");
  out.sample({owner, {"request", kind}}, so_far, "_count");
}

// WHAT: "node" or "export".
void write_requests(Exposition& out, std::string_view what, const std::vector<Counted>& all) {
  const std::string prefix = "cairn_" + std::string(what) + "_";
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help,
                        const auto& write) {
    out.begin(prefix + std::string(name), type, help);
    for (const Counted& one : all)
      for (const RequestKind kind : kAllKinds)
        write(Label{what, one.name}, kind, one.sums[static_cast<size_t>(kind)]);
  };
  each("requests_total", "counter", "Requests that have ended.",
       [&](Label owner, RequestKind kind, const RequestSums& sums) {
         out.sample({owner, {"request", to_string(kind)}}, sums.requests());
       });
  each("request_errors_total", "counter", "Requests that failed.",
       [&](Label owner, RequestKind kind, const RequestSums& sums) {
         out.sample({owner, {"request", to_string(kind)}}, sums.failed);
       });
  each("request_bytes_total", "counter", "Bytes of the requests that succeeded.",
       [&](Label owner, RequestKind kind, const RequestSums& sums) {
         if (kind != RequestKind::kFlush)
           out.sample({owner, {"request", to_string(kind)}}, sums.bytes);
       });
  each("request_duration_seconds", "histogram", "What requests took.",
       [&](Label owner, RequestKind kind, const RequestSums& sums) {
         write_durations(out, owner, to_string(kind), sums);
       });
}

// A node may have several caches of one name: those of the parts of a disk.
void write_caches(Exposition& out, const std::vector<CountedNode>& nodes) {
  struct Sums {
    uint64_t hits = 0, misses = 0;
  };
  std::map<std::pair<std::string, std::string>, Sums> sums;
  for (const CountedNode& one : nodes)
    if (const auto* reporter = one.node->as<CacheReporter>())
      for (const CacheCountsPtr& counts : reporter->cache_counts()) {
        Sums& sum = sums[{one.name, counts->name}];
        sum.hits += counts->hits.load(std::memory_order_relaxed);
        sum.misses += counts->misses.load(std::memory_order_relaxed);
      }
  out.begin("cairn_node_cache_hits_total", "counter", "What a cache of the node had.");
  for (const auto& [names, sum] : sums)
    out.sample({{"node", names.first}, {"cache", names.second}}, sum.hits);
  out.begin("cairn_node_cache_misses_total", "counter", "What it had to fetch.");
  for (const auto& [names, sum] : sums)
    out.sample({{"node", names.first}, {"cache", names.second}}, sum.misses);
}

void write_nodes(Exposition& out, Daemon& daemon) {
  const std::vector<CountedNode> nodes = daemon.graph().counted_nodes();
  out.begin("cairn_node_info", "gauge", "1 for each node, with its driver.");
  for (const CountedNode& one : nodes)
    out.sample({{"node", one.name}, {"driver", one.node->driver().name()}}, 1);
  out.begin("cairn_node_size_bytes", "gauge", "The size of the disk.");
  for (const CountedNode& one : nodes) out.sample({{"node", one.name}}, one.node->length());
  std::vector<Counted> all;
  for (const CountedNode& one : nodes) all.push_back(counted(one.name, *one.counts));
  write_requests(out, "node", all);
  write_caches(out, nodes);
}

void write_exports(Exposition& out, Daemon& daemon) {
  std::vector<Counted> all;
  out.begin("cairn_export_info", "gauge", "1 for each export, with its type.");
  daemon.exports().each([&](const LiveExport& one) {
    out.sample({{"export", one.id()}, {"type", one.type()}}, 1);
    if (const RequestCounts* counts = one.root()->counts())
      all.push_back(counted(one.id(), *counts));
  });
  out.begin("cairn_export_in_use", "gauge", "1 while a client has the export.");
  daemon.exports().each([&](const LiveExport& one) {
    out.sample({{"export", one.id()}}, one.in_use() ? 1 : 0);
  });
  write_requests(out, "export", all);
  out.begin("cairn_nbd_clients", "gauge", "Clients of the NBD server that work with an export.");
  out.sample({}, daemon.nbd().running() ? daemon.nbd().server().statistics().clients : 0);
}

void write_jobs(Exposition& out, Daemon& daemon) {
  std::vector<JobInfo> jobs;
  for (const live::JobPtr& job : daemon.jobs().list()) jobs.push_back(job->info());
  const auto gauge = [&](std::string_view name, std::string_view help, const auto& value) {
    out.begin(name, "gauge", help);
    for (const JobInfo& job : jobs) out.sample({{"job", job.id}}, value(job));
  };
  out.begin("cairn_job_info", "gauge", "1 for each job, with its type.");
  for (const JobInfo& job : jobs) out.sample({{"job", job.id}, {"type", to_string(job.type)}}, 1);
  out.begin("cairn_job_status", "gauge", "1 for the status that the job has, 0 for others.");
  for (const JobInfo& job : jobs)
    for (auto status = JobStatus::kCreated; status <= JobStatus::kConcluded;
         status = static_cast<JobStatus>(static_cast<uint8_t>(status) + 1))
      out.sample({{"job", job.id}, {"status", to_string(status)}}, job.status == status ? 1 : 0);
  gauge("cairn_job_progress", "What the job has done; bytes, for jobs that copy.",
        [](const JobInfo& job) { return job.done; });
  gauge("cairn_job_progress_total", "What there is to do, as far as the job knows.",
        [](const JobInfo& job) { return job.total; });
  gauge("cairn_job_speed_limit_bytes", "The limit of bytes per second; 0: none.",
        [](const JobInfo& job) { return static_cast<uint64_t>(job.speed); });
  gauge("cairn_job_failed", "1 when the job has failed.",
        [](const JobInfo& job) { return uint64_t{job.error.has_value()}; });
}

uint64_t nanoseconds_of(const struct timeval& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<uint64_t>(time.tv_usec) * 1000;
}

uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t all = 0;
  uint64_t resident = 0;
  file >> all >> resident;
  return file ? resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

uint64_t open_descriptors() {
  DIR* directory = ::opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  uint64_t count = 0;
  while (const dirent* entry = ::readdir(directory))
    if (entry->d_name[0] != '.') ++count;
  ::closedir(directory);
  return count - 1;  // without the one that reads
}

void write_process(Exposition& out, Daemon& daemon) {
  out.begin("cairn_build_info", "gauge", "1, with the version of the program.");
  out.sample({{"version", version()}}, 1);
  out.begin("process_start_time_seconds", "gauge", "When the daemon started, since 1970.");
  out.sample_seconds({}, daemon.started_at());
  struct rusage used {};
  ::getrusage(RUSAGE_SELF, &used);
  out.begin("process_cpu_seconds_total", "counter", "Processor time of the program.");
  out.sample_seconds({}, nanoseconds_of(used.ru_utime) + nanoseconds_of(used.ru_stime));
  out.begin("process_resident_memory_bytes", "gauge", "Memory of the program.");
  out.sample({}, resident_bytes());
  out.begin("process_open_fds", "gauge", "Descriptors that the program has open.");
  out.sample({}, open_descriptors());
}

}  // namespace

std::string collect_metrics(Daemon& daemon) {
  Exposition out;
  write_process(out, daemon);
  write_nodes(out, daemon);
  write_exports(out, daemon);
  write_jobs(out, daemon);
  return out.text();
}

}  // namespace cairn::daemon
