#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"

namespace cairn {

// The kinds of object that are a Secret.
const std::vector<ObjectType>& secret_types();

// Where images find what opens them: the objects that hold secrets, and the answers of a person.
// Any thread may call its functions.
class Secrets {
 public:
  // What a person is asked for: the image, and whether to ask twice because the answer makes a new
  // key. Gives nothing when nobody can be asked.
  using Ask = std::function<std::shared_ptr<const Secret>(const std::string& image, bool twice)>;

  // OBJECTS must outlive it.
  explicit Secrets(const Objects& objects) : objects_(objects) {}

  // The secret that option KEY of OPTIONS names; where there is none, the answer of a person, who
  // is asked once for an image, also when several threads open it at once. Throws QEMU's words
  // about SHOWN_KEY when there is neither. What it gives stays good as long as this object.
  const Secret& for_image(const Options& options, std::string_view key,
                          const std::string& shown_key, const std::string& image, bool create);

  // What a person answered for the image OLD is the answer for FRESH.
  void same_answer(const std::string& old, const std::string& fresh);
  Ask ask;

 private:
  const Objects& objects_;
  std::mutex asking_;  // guards what follows
  std::map<std::string, std::shared_ptr<const Secret>, std::less<>> answers_;
  std::vector<std::shared_ptr<const Secret>> former_;  // which others have replaced
};

}  // namespace cairn
