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
  if (!request_.file_node.empty()) co_await take_file();
  co_await request_.driver->create(graph().context(), std::move(request_.image));
}

// The file belongs to the job until it has concluded.
Task<void> CreateJob::take_file() {
  const Resting resting(*this);
  const auto change = co_await graph().change();
  const std::string& name = request_.file_node;
  NodePtr file = graph().find(name);
  if (file == nullptr)
    throw Error(ErrorKind::kNotFound,
                "Cannot find device='" + name + "' nor node-name='" + name + "'");
  request_.image.filename = file->filename();
  request_.image.file = file;
  co_await use(file, "root", Permissions::kWrite | Permissions::kResize, Permissions::kAll, false);
}

}  // namespace cairn::live
