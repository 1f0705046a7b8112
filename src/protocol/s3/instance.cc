#include "protocol/s3/instance.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <random>
#include <utility>
#include <vector>

#include "async/runtime.h"
#include "base/own_fd.h"
#include "base/value.h"
#include "block/context.h"
#include "protocol/s3/options.h"
#include "protocol/web/response.h"
#include "protocol/web/transport.h"

namespace cairn::s3 {
namespace {

using std::chrono::system_clock;
using namespace std::chrono_literals;

// The services are on this machine or next to it.
constexpr auto kTimeout = 2s;
constexpr unsigned kAttempts = 3;
constexpr size_t kMostKeysBytes = 64 << 10;
constexpr size_t kMostTokenBytes = 16 << 10;
// How long before their end credentials are renewed; providers have new ones five minutes before.
constexpr auto kAhead = 5min;
constexpr auto kLeastWait = 1s;
constexpr auto kLongestWait = 1h;

constexpr char kContainerService[] = "http://169.254.170.2";
constexpr char kMachineService[] = "http://169.254.169.254";
constexpr char kRoles[] = "/latest/meta-data/iam/security-credentials/";

bool is_url(std::string_view url) {
  return (url.starts_with("http://") || url.starts_with("https://")) &&
         url.find_first_of(" \t\r\n") == std::string_view::npos;
}

// Whether what is sent to URL stays on this machine, or goes to the service of containers.
bool stays_here(std::string_view url) {
  url.remove_prefix(std::min(url.size(), std::string_view("http://").size()));
  const std::string_view authority = url.substr(0, url.find_first_of("/?#"));
  if (authority.find('@') != std::string_view::npos) return false;
  const bool bracket = authority.starts_with('[');
  const std::string_view host = authority.substr(
      0, bracket ? std::min(authority.find(']'), authority.size() - 1) + 1 : authority.find(':'));
  for (const char* name :
       {"localhost", "127.0.0.1", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"})
    if (host == name) return true;
  return false;
}

bool is_one_line(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

std::string first_line_of(const std::string& path) {
  const OwnFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) throw Error::system(errno, "Could not open '" + path + "'");
  std::array<char, kMostTokenBytes> text{};
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  if (got < 0) throw Error::system(errno, "Could not read '" + path + "'");
  const std::string_view all(text.data(), static_cast<size_t>(got));
  return std::string(all.substr(0, all.find_first_of("\r\n")));
}

// "YYYY-MM-DDTHH:MM:SSZ".
system_clock::time_point parse_time(const std::string& text) {
  std::tm parts{};
  const char* end = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (end == nullptr || (*end != 'Z' && *end != '.' && *end != '+'))
    throw Error(ErrorKind::kDenied, "the metadata service names no time when keys expire");
  return system_clock::from_time_t(::timegm(&parts));
}

std::string text_of(const Value& tree, std::string_view key) {
  const Value* value = tree.find(key);
  const auto* text = value == nullptr ? nullptr : value->get_if<std::string>();
  return text == nullptr ? std::string() : *text;
}

}  // namespace

TimedCredentials parse_instance_credentials(std::string_view json) {
  Value tree;
  try {
    tree = Value::parse(json);
  } catch (const Error&) {
    // Below.
  }
  if (!tree.is_object())
    throw Error(ErrorKind::kDenied, "the metadata service answered something that is no keys");
  TimedCredentials result{.who = {.access_key = text_of(tree, "AccessKeyId"),
                                  .secret_key = text_of(tree, "SecretAccessKey"),
                                  .session_token = text_of(tree, "Token")},
                          .until = std::nullopt};
  const Credentials& who = result.who;
  if (who.access_key.empty() || who.secret_key.empty()) {
    const std::string code = text_of(tree, "Code");
    throw Error(ErrorKind::kDenied, "the metadata service has no keys" +
                                        (code.empty() || !is_one_line(code) ? "" : ": " + code));
  }
  if (!is_one_line(who.access_key) || !is_one_line(who.session_token))
    throw Error(ErrorKind::kDenied, "the metadata service answered keys of several lines");
  if (const std::string until = text_of(tree, "Expiration"); !until.empty())
    result.until = parse_time(until);
  return result;
}

MetadataService metadata_service(const Context& context) {
  MetadataService service;
  const std::string relative = variable(context, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  const std::string full = variable(context, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (relative.empty() && full.empty()) {
    if (variable(context, "AWS_EC2_METADATA_DISABLED") == "true")
      throw Error(ErrorKind::kDenied,
                  "credentials=instance: AWS_EC2_METADATA_DISABLED forbids to ask");
    service.url = variable(context, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (service.url.empty()) service.url = kMachineService;
    while (service.url.ends_with('/')) service.url.pop_back();
    if (!is_url(service.url)) invalid("AWS_EC2_METADATA_SERVICE_ENDPOINT is no http:// address");
    return service;
  }
  service.container = true;
  service.url = relative.empty() ? full : kContainerService + relative;
  if (!is_url(service.url) || (!relative.empty() && !relative.starts_with('/')))
    invalid("The address of the container's credentials in the environment is none");
  if (!service.url.starts_with("https://") && !stays_here(service.url))
    invalid(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI must begin with https://, or name this machine or the "
        "service of its containers");
  service.token = variable(context, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
  service.token_file = variable(context, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  return service;
}

// One answer of the service, by as many requests as it takes. Used again and again; everything but
// start() is of the client's thread.
class InstanceCredentials::Round : public web::Transfer {
 public:
  explicit Round(InstanceCredentials& owner) : owner_(owner), random_(std::random_device{}()) {
    transport_.timeout = kTimeout;
  }
  ~Round() override {
    if (head_ != nullptr) owner_.client_.curl().slist_free_all(head_);
  }

  void start(web::Client::Clock::duration wait = {}) {
    attempt_ = 0;
    step_ = owner_.service_.container ? Step::kKeys : Step::kToken;
    owner_.client_.submit(*this, web::Client::Clock::now() + wait);
  }

 private:
  enum class Step { kToken, kRole, kKeys };

  void prepare(CURL* easy) override {
    const web::CurlLibrary& curl = owner_.client_.curl();
    const MetadataService& service = owner_.service_;
    response_.clear();
    body_.clear();
    std::string url = service.url;
    if (!service.container)
      url += step_ == Step::kToken  ? "/latest/api/token"
             : step_ == Step::kRole ? kRoles
                                    : kRoles + role_;
    web::describe(curl, easy, transport_, url, false);
    // Never through a proxy, which would see the keys.
    curl.easy_setopt(easy, CURLOPT_PROXY, "");
    if (head_ != nullptr) curl.slist_free_all(std::exchange(head_, nullptr));
    const auto header = [&](const std::string& line) {
      if (curl_slist* longer = curl.slist_append(head_, line.c_str())) head_ = longer;
    };
    if (service.container) {
      try {
        if (const std::string token = authorization(); !token.empty())
          header("Authorization: " + token);
      } catch (const Error& error) {
        problem_ = error;
      }
    } else if (step_ == Step::kToken) {
      curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PUT");
      header("X-aws-ec2-metadata-token-ttl-seconds: 300");
    } else {
      header("X-aws-ec2-metadata-token: " + token_);
    }
    curl.easy_setopt(easy, CURLOPT_HTTPHEADER, head_);
  }

  bool head_line(std::string_view line) override { return response_.add_line(line); }

  bool body(ByteSpan bytes) override {
    if (body_.size() + bytes.size() > kMostKeysBytes) return false;
    body_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return true;
  }

  void ended(CURL*, CURLcode code, const char* text) override {
    try {
      if (problem_) throw *std::exchange(problem_, std::nullopt);
      const unsigned status = response_.status;
      if (code != CURLE_OK)
        return again(Error(ErrorKind::kDenied,
                           "no metadata service answers at " + owner_.service_.url + ": " + text)
                         .hint("credentials=instance is for virtual machines and containers whose "
                               "provider gives them a role."));
      if (status != 200) {
        Error why(ErrorKind::kDenied,
                  "the metadata service answered " + std::to_string(status) +
                      (status == 404 && step_ == Step::kRole ? ": the machine has no role" : ""));
        return status >= 500 || status == 429 ? again(why) : give(std::nullopt, &why);
      }
      next();
    } catch (const Error& error) {
      give(std::nullopt, &error);
    }
  }

  void dropped(const Error& why) override { give(std::nullopt, &why); }

  void next() {
    if (step_ == Step::kKeys) return give(parse_instance_credentials(body_), nullptr);
    const std::string line = body_.substr(0, body_.find_first_of("\r\n"));
    if (line.empty() || line.size() > kMostTokenBytes || !is_one_line(line))
      throw Error(ErrorKind::kDenied, "the metadata service names no " +
                                          std::string(step_ == Step::kToken ? "token" : "role"));
    if (step_ == Step::kToken) {
      token_ = line;
      step_ = Step::kRole;
    } else {
      role_ = percent_encoded(line, true);
      step_ = Step::kKeys;
    }
    owner_.client_.submit(*this);
  }

  void again(const Error& why) {
    if (++attempt_ == kAttempts) return give(std::nullopt, &why);
    owner_.client_.submit(*this, web::Client::Clock::now() + web::pause_after(0, random_));
  }

  void give(std::optional<TimedCredentials> got, const Error* why) {
    body_.clear();
    token_.clear();
    owner_.ended(*this, std::move(got), why);
  }

  std::string authorization() const {
    const MetadataService& service = owner_.service_;
    const std::string token =
        service.token_file.empty() ? service.token : first_line_of(service.token_file);
    if (!is_one_line(token)) invalid("AWS_CONTAINER_AUTHORIZATION_TOKEN must be one line");
    return token;
  }

  InstanceCredentials& owner_;
  web::Transport transport_;
  Step step_ = Step::kToken;
  std::string token_, role_, body_;
  web::Response response_;
  unsigned attempt_ = 0;
  std::optional<Error> problem_;  // with what was to be sent
  std::minstd_rand random_;
  curl_slist* head_ = nullptr;
};

struct InstanceCredentials::Opening {
  InstanceCredentials& self;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    self.home_ = Worker::current();
    self.waiter_ = handle;
    self.regular_->start();
  }
  void await_resume() const {
    if (self.error_) std::rethrow_exception(self.error_);
  }
};

InstanceCredentials::InstanceCredentials(Context& context, MetadataService service)
    : context_(context),
      service_(std::move(service)),
      client_(2, context.cancel),
      regular_(std::make_unique<Round>(*this)),
      hurried_round_(std::make_unique<Round>(*this)) {}

InstanceCredentials::~InstanceCredentials() { client_.stop(); }

Task<void> InstanceCredentials::open() { co_await Opening{*this}; }

Credentials InstanceCredentials::current() const {
  const std::lock_guard lock(mutex_);
  return now_.who;
}

void InstanceCredentials::refused() {
  {
    const std::lock_guard lock(mutex_);
    if (!opened_ || std::exchange(hurried_, true)) return;
  }
  hurried_round_->start();
}

void InstanceCredentials::ended(Round& round, std::optional<TimedCredentials> got,
                                const Error* why) {
  const bool regular = &round == regular_.get();
  web::Client::Clock::duration wait = kLongestWait;
  bool first = false;
  bool report = false;
  {
    const std::lock_guard lock(mutex_);
    if (!regular) hurried_ = false;
    first = regular && !opened_;
    opened_ = opened_ || got;
    report = why != nullptr && !first && why->kind() != ErrorKind::kCancelled &&
             !std::exchange(failing_, true);
    if (got) {
      failing_ = false;
      now_ = std::move(*got);
    } else if (first) {
      error_ = std::make_exception_ptr(*why);
    }
    if (now_.until) {
      const auto left = *now_.until - system_clock::now();
      wait = std::clamp<web::Client::Clock::duration>(
          std::max<system_clock::duration>(left - kAhead, left / 2), kLeastWait, kLongestWait);
    }
  }
  if (report)
    context_.tell(std::string("the credentials could not be renewed yet: ") + why->what());
  const bool goes_on = why == nullptr || (!first && why->kind() != ErrorKind::kCancelled);
  if (regular && goes_on) round.start(wait);
  if (first) home_->post(waiter_);
}

}  // namespace cairn::s3
