#include "cli/nbd/vhost_user.h"

#include <unistd.h>

#include "cli/report.h"
#include "cli/signals.h"

namespace cairn::cli {
namespace {

void report(const Session& session, const operation::VhostUserPlan& plan,
            const std::vector<uint64_t>& sizes) {
  Value disks = Value::array();
  for (size_t i = 0; i < plan.disks.size(); ++i) {
    Value one = Value::object();
    one.set("filename", plan.disks[i].image.title);
    one.set("size", sizes[i]);
    one.set("socket", plan.disks[i].socket);
    disks.push_back(std::move(one));
  }
  Value out = Value::object();
  out.set("pid", int64_t{::getpid()});
  out.set("disks", std::move(disks));
  print_report(session, out);
}

}  // namespace

int serve_vhost_user(Session& session, operation::VhostUserPlan plan, bool quiet) {
  if (!quiet) plan.log = [&session](std::string_view text) { session.error(text); };
  const operation::VhostUserPlan shown = plan;
  plan.ready = [&session, &shown, quiet](const std::vector<uint64_t>& sizes) {
    if (session.json)
      report(session, shown, sizes);
    else if (!quiet)
      for (const auto& disk : shown.disks) print(disk.socket + "  " + disk.image.title + "\n");
    finish_output();
    take_time_while_servers_answer();
  };
  operation::Caller caller = session.caller();
  run(session, operation::serve_vhost_user(caller, std::move(plan)));
  return 0;
}

}  // namespace cairn::cli
