#pragma once

#include <chrono>
#include <coroutine>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "async/task.h"
#include "protocol/s3/sign.h"
#include "protocol/web/client.h"

namespace cairn {
class Context;
class Worker;
}  // namespace cairn

namespace cairn::s3 {

// Credentials of limited time.
struct TimedCredentials {
  Credentials who;
  std::optional<std::chrono::system_clock::time_point> until;  // nothing: they do not expire
};

// The answer of a metadata service (AccessKeyId, SecretAccessKey, Token, Expiration). Throws
// kDenied when it is a refusal or none.
TimedCredentials parse_instance_credentials(std::string_view json);

// Who answers with credentials, as the environment says.
struct MetadataService {
  std::string url;                // of the credentials, or of the machine's service
  std::string token, token_file;  // sent as Authorization; the file is read each time
  bool container = false;         // a container's service: one request is all
};

// AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and …_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN(_FILE),
// else the service of a virtual machine, or AWS_EC2_METADATA_SERVICE_ENDPOINT. Throws kInvalid for
// URLs that would carry the token over a network in the clear, kDenied when
// AWS_EC2_METADATA_DISABLED is true.
MetadataService metadata_service(const Context& context);

// Credentials that this machine or container has from its provider: fetched once, and again before
// they expire, by a thread of its own. The protocol of a machine is version 2 (IMDSv2): a token is
// asked for first.
class InstanceCredentials {
 public:
  InstanceCredentials(Context& context, MetadataService service);
  ~InstanceCredentials();

  // Waits for the first ones. Throws why there are none.
  Task<void> open();
  // The newest ones, after open(). From any thread.
  Credentials current() const;
  // The server refused current(): new ones are fetched at once. From any thread.
  void refused();

 private:
  class Round;
  struct Opening;

  void ended(Round& round, std::optional<TimedCredentials> got, const Error* why);

  Context& context_;
  const MetadataService service_;
  mutable std::mutex mutex_;
  TimedCredentials now_;
  bool opened_ = false;
  bool failing_ = false;  // the last renewal, which was reported
  bool hurried_ = false;  // the hurried round is under way
  Worker* home_ = nullptr;
  std::coroutine_handle<> waiter_;
  std::exception_ptr error_;  // why there were none at first

  web::Client client_;
  // One by the clock, and one for refused().
  std::unique_ptr<Round> regular_, hurried_round_;
};

}  // namespace cairn::s3
