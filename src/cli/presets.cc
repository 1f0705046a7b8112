#include "cli/presets.h"

#include <algorithm>

#include "cli/report.h"
#include "operation/presets.h"

namespace cairn::cli {

using operation::Preset;
using operation::PresetImage;
using operation::presets;

namespace {

void report_presets(const Session& session) {
  Value list = Value::array();
  for (const Preset& preset : presets()) {
    Value one = Value::object();
    one.set("name", preset.name);
    one.set("title", preset.title);
    Value images = Value::array();
    for (const PresetImage& image : preset.images) {
      Value kind = Value::object();
      kind.set("ending", image.ending);
      kind.set("format", image.format);
      kind.set("title", image.ready);
      images.push_back(std::move(kind));
    }
    one.set("images", std::move(images));
    list.push_back(std::move(one));
  }
  Value out = Value::object();
  out.set("presets", std::move(list));
  print_report(session, out, "presets");
}

}  // namespace

int print_presets(const Session& session) {
  if (session.json) {
    report_presets(session);
    return 0;
  }
  for (const Preset& preset : presets()) {
    std::string kinds;
    for (const PresetImage& image : preset.images)
      kinds += (kinds.empty() ? "" : ", or NAME") + std::string(image.ending) + ": " +
               std::string(image.ready);
    std::string line(preset.name);
    line.resize(12, ' ');
    std::string title(preset.title);
    title.resize(std::max<size_t>(title.size() + 1, 24), ' ');
    print(line + title + "NAME" + kinds + "\n");
  }
  return 0;
}

}  // namespace cairn::cli
