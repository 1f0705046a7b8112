#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/options.h"

namespace cairn {

class Context;

// A secret: wiped when it goes.
class Secret {
 public:
  // Takes the bytes over; whatever is left of them in BYTES is wiped.
  explicit Secret(std::string&& bytes);
  Secret(const Secret&) = delete;
  ~Secret();
  std::string_view bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// The objects of a Context that hold secrets, by id.
class Secrets {
 public:
  // What a person is asked for: the image, and whether to ask twice because the answer makes a new
  // key. Gives nothing when nobody can be asked.
  using Ask = std::function<std::shared_ptr<const Secret>(const std::string& image, bool twice)>;

  // Makes a `secret` or `secret_keyring` object out of PROPERTIES ("id" among them). Throws
  // kInvalid with QEMU's wording.
  void add(std::string_view type, const std::string& id, const Options& properties);
  bool has(std::string_view id) const { return secrets_.contains(id); }
  // Throws "No secret with id 'ID'", or that something else has this id.
  const Secret& get(std::string_view id) const;
  // The secret that option KEY of OPTIONS names; where there is none, the answer of a person, who
  // is asked once for an image. Throws QEMU's words about SHOWN_KEY when there is neither.
  const Secret& for_image(const Options& options, std::string_view key,
                          const std::string& shown_key, const std::string& image, bool create);

  // What a person answered for the image OLD is the answer for FRESH.
  void same_answer(const std::string& old, const std::string& fresh);
  Ask ask;
  // Whether an object of another kind has this id.
  std::function<bool(std::string_view id)> is_other;

 private:
  std::map<std::string, std::unique_ptr<Secret>, std::less<>> secrets_;
  std::map<std::string, std::shared_ptr<const Secret>, std::less<>> answers_;
};

}  // namespace cairn
