#include "job/live/create.h"

namespace cairn::live {

Task<void> CreateJob::run() {
  add_total(1);
  co_await finally([this] { return make(); },
                   [this]() -> Task<void> {
                     add_done(1);
                     co_return;
                   });
}

Task<void> CreateJob::make() {
  if (!request_.refusal.empty()) invalid(request_.refusal);
  if (request_.driver->kind() == DriverKind::kFormat) co_await take_files();
  co_await request_.driver->create(graph().context(), std::move(request_.image));
}

// The files belong to the job until it has concluded.
Task<void> CreateJob::take_files() {
  const Resting resting(*this);
  const auto change = co_await graph().change();
  request_.image.parts.emplace();
  std::map<const Node*, std::string> taken;
  for (auto& [name, which] : request_.files) {
    NodePtr file = co_await take_file(std::move(which));
    if (const auto [other, is_new] = taken.emplace(file.get(), name); !is_new)
      invalid("Node '" + file->node_name() + "' cannot be '" + other->second + "' and '" + name +
              "' of one image");
    if (name == "file") {
      request_.image.filename = file->filename();
      request_.image.file = std::move(file);
    } else {
      request_.image.parts->emplace(name, std::move(file));
    }
  }
}

Task<NodePtr> CreateJob::take_file(CreationFile which) {
  NodePtr file;
  if (const std::string* name = std::get_if<std::string>(&which))
    file = graph().lookup(*name);
  else
    file = co_await graph().open({}, std::get<Options>(std::move(which)));
  co_await use(file, "root", Permissions::kWrite | Permissions::kResize, Permissions::kAll, false);
  co_return file;
}

}  // namespace cairn::live
