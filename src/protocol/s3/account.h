#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/s3/instance.h"
#include "protocol/s3/sign.h"
#include "protocol/web/dialect.h"

namespace cairn::s3 {

// An object, and the service that has it.
struct Place {
  std::string bucket, key;
  std::string version;   // empty: the latest
  std::string endpoint;  // "http://host:port", where names are paths; empty: Amazon's service
  std::string region;
};

// "s3://BUCKET/KEY[?versionId=V]". Throws kInvalid for names that no service has.
Place parse_name(std::string_view name);
std::string name_of(const Place& place);

// How requests for an object are addressed and signed. The service may say that the bucket is in
// another region, which holds from then on. From any thread.
class Account : public web::Dialect {
 public:
  using Query = std::vector<std::pair<std::string, std::string>>;

  // Signs as WHO, or with the newest credentials of INSTANCE, which is open before the first
  // request.
  Account(Place place, Credentials who, std::shared_ptr<InstanceCredentials> instance = nullptr);

  const std::string& shown() const { return shown_; }
  std::string url(Query query) const;
  // Lines of the head for METHOD at TARGET, which url() gave, with a body of PAYLOAD_HASH.
  std::vector<std::string> head(std::string_view method, const std::string& target,
                                const std::string& payload_hash) const;

  // The object itself.
  std::string url() const override;
  std::vector<std::string> head(const std::string& target) const override;
  Refusal refused(const web::Response& response, std::string_view body) override;

 private:
  std::string region() const;

  const Place place_;
  const Credentials who_;
  const std::shared_ptr<InstanceCredentials> instance_;
  const std::string shown_;
  mutable std::mutex mutex_;
  std::string region_;
};

}  // namespace cairn::s3
