#include "cli/environment.h"

#include <cstdlib>
#include <string_view>

namespace cairn::cli {
namespace {

constexpr const char* kForDrivers[] = {"AWS_ACCESS_KEY_ID",
                                       "AWS_CA_BUNDLE",
                                       "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                       "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                                       "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                       "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                       "AWS_DEFAULT_REGION",
                                       "AWS_EC2_METADATA_DISABLED",
                                       "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                                       "AWS_ENDPOINT_URL",
                                       "AWS_PROFILE",
                                       "AWS_REGION",
                                       "AWS_SECRET_ACCESS_KEY",
                                       "AWS_SESSION_TOKEN"};

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

void take_environment(Context& context) {
  const std::string_view engine = variable("CAIRN_ENGINE");
  if (engine == "threads") context.runtime().set_engine(EngineKind::kThreads);
  if (engine == "uring") context.runtime().set_engine(EngineKind::kUring);
  context.home_directory = variable("HOME");
  for (const char* name : kForDrivers)
    if (const std::string_view value = variable(name); !value.empty())
      context.variables.emplace(name, value);
  // /tmp often is memory, which is no place for what is large.
  const std::string_view temporary = variable("TMPDIR");
  if (!temporary.empty() && temporary != "/tmp") context.temporary_directory = temporary;
}

}  // namespace cairn::cli
