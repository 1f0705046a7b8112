#include "format/dmg/plist.h"

#include <expat.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <new>

#include "base/base64.h"

namespace cairn::dmg {
namespace {

constexpr unsigned kMaxDepth = 100;
constexpr size_t kPieceBytes = 64 << 10;

// What is kept while expat walks through the text. Errors must not be thrown through its frames:
// they are kept, and parsing is stopped.
class Walk {
 public:
  Walk(XML_Parser parser, const std::function<void(ByteSpan)>& data)
      : parser_(parser), data_(data) {
    XML_SetUserData(parser, this);
    XML_SetElementHandler(
        parser, [](void* self, const XML_Char* name, const XML_Char**) { of(self).begin(name); },
        [](void* self, const XML_Char* name) { of(self).end(name); });
    XML_SetCharacterDataHandler(parser, [](void* self, const XML_Char* text, int length) {
      of(self).text(std::string_view(text, static_cast<size_t>(length)));
    });
    XML_SetEntityDeclHandler(
        parser,
        [](void* self, const XML_Char*, int, const XML_Char*, int, const XML_Char*, const XML_Char*,
           const XML_Char*, const XML_Char*) { of(self).stop("it declares entities"); });
  }

  // Parses TEXT to its end or to that of the root element.
  void parse(ByteSpan text) {
    while (!ended_) {
      const ByteSpan piece = text.first(std::min(text.size(), kPieceBytes));
      text = text.subspan(piece.size());
      const XML_Status status =
          XML_Parse(parser_, reinterpret_cast<const char*>(piece.data()),
                    static_cast<int>(piece.size()), text.empty() ? XML_TRUE : XML_FALSE);
      if (error_) std::rethrow_exception(error_);
      if (ended_) return;
      if (status != XML_STATUS_OK) refuse(XML_ErrorString(XML_GetErrorCode(parser_)));
      if (text.empty()) return;
    }
  }

 private:
  static Walk& of(void* self) { return *static_cast<Walk*>(self); }

  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(
        ErrorKind::kInvalid,
        "property list, line " + std::to_string(XML_GetCurrentLineNumber(parser_)) + ": " + why);
  }
  void stop(const std::string& why) {
    try {
      refuse(why);
    } catch (...) {
      halt(std::current_exception());
    }
  }
  void halt(std::exception_ptr error) {
    if (!error_) error_ = std::move(error);
    XML_StopParser(parser_, XML_FALSE);
  }

  void begin(std::string_view name) {
    if (error_) return;
    if (++depth_ > kMaxDepth) return stop("its elements are nested too deep");
    if (collecting_) return stop("there is an element inside of a data element");
    if (name == "data") collecting_ = true;
  }
  void text(std::string_view part) {
    if (!collecting_ || error_) return;
    try {
      std::copy_if(part.begin(), part.end(), std::back_inserter(base64_),
                   [](char c) { return c != ' ' && c != '\t' && c != '\n' && c != '\r'; });
    } catch (...) {
      halt(std::current_exception());
    }
  }
  void end(std::string_view) {
    if (error_) return;
    --depth_;
    if (collecting_) finish_data();
    if (depth_ != 0 || error_) return;
    ended_ = true;
    XML_StopParser(parser_, XML_FALSE);
  }
  void finish_data() {
    collecting_ = false;
    try {
      const auto bytes = decode_base64(base64_);
      base64_.clear();
      if (!bytes) refuse("a data element is not in base64");
      data_(bytes_of(*bytes));
    } catch (...) {
      halt(std::current_exception());
    }
  }

  XML_Parser parser_;
  const std::function<void(ByteSpan)>& data_;
  unsigned depth_ = 0;
  bool collecting_ = false;
  bool ended_ = false;
  std::string base64_;
  std::exception_ptr error_;
};

}  // namespace

void each_data(ByteSpan plist, const std::function<void(ByteSpan)>& data) {
  constexpr std::string_view kBinary = "bplist";
  if (plist.size() >= kBinary.size() && load_text(plist, 0, kBinary.size()) == kBinary)
    throw Error(ErrorKind::kInvalid, "property list: it is a binary one, not XML");
  const std::unique_ptr<XML_ParserStruct, void (*)(XML_Parser)> parser(XML_ParserCreate(nullptr),
                                                                       XML_ParserFree);
  if (!parser) throw std::bad_alloc();
  Walk(parser.get(), data).parse(plist);
}

}  // namespace cairn::dmg
