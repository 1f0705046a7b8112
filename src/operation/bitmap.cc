#include "operation/bitmap.h"

#include "async/finally.h"
#include "block/capabilities/bitmap_store.h"
#include "block/driver.h"

namespace cairn::operation {
namespace {

using Kind = BitmapAction::Kind;

void act(const BitmapOptions& plan, const BitmapAction& action, Node& node, Node& source) {
  DirtyBitmaps& bitmaps = node.bitmaps();
  switch (action.kind) {
    case Kind::kAdd:
      add_bitmap(node, {.name = plan.name,
                        .granularity = plan.granularity,
                        .persistent = true,
                        .enabled = true});
      break;
    case Kind::kRemove:
      bitmaps.remove(plan.name);
      break;
    case Kind::kMerge: {
      const DirtyBitmapPtr target = bitmaps.get(plan.name);
      const DirtyBitmapPtr from = source.bitmaps().get(action.source);
      target->check_changeable();
      from->check_readable();
      target->merge(*from);
      break;
    }
    default: {
      const DirtyBitmapPtr bitmap = bitmaps.get(plan.name);
      bitmap->check_changeable();
      if (action.kind == Kind::kClear)
        bitmap->clear();
      else
        bitmap->set_enabled(action.kind == Kind::kEnable);
      break;
    }
  }
}

Value bitmap_entry(const DirtyBitmap& bitmap) {
  Value entry = Value::object();
  entry.set("name", bitmap.name());
  entry.set("granularity", bitmap.granularity());
  entry.set("enabled", bitmap.enabled());
  entry.set("inconsistent", bitmap.inconsistent());
  // Nobody knows what an inconsistent one should hold.
  if (!bitmap.inconsistent()) entry.set("dirty-bytes", bitmap.dirty_bytes());
  return entry;
}

}  // namespace

std::string_view to_string(BitmapAction::Kind kind) {
  switch (kind) {
    case Kind::kAdd:
      return "add";
    case Kind::kRemove:
      return "remove";
    case Kind::kClear:
      return "clear";
    case Kind::kEnable:
      return "enable";
    case Kind::kDisable:
      return "disable";
    case Kind::kMerge:
      return "merge";
  }
  return {};
}

Task<void> change_bitmaps(const Caller& caller, BitmapOptions plan) {
  std::vector<NodePtr> nodes;
  co_await finally(
      [&]() -> Task<void> {
        NodePtr node = co_await open_node(caller.context, std::move(plan.image));
        nodes.push_back(std::move(node));
        if (plan.merge_from) {
          NodePtr source = co_await open_node(caller.context, std::move(*plan.merge_from));
          nodes.push_back(std::move(source));
        }
        uint64_t done = 0;
        for (const BitmapAction& action : plan.actions) {
          caller.progress(done++, plan.actions.size());
          try {
            act(plan, action, *nodes.front(), *nodes.back());
          } catch (Error& caught) {
            throw caught.context("Operation " + std::string(to_string(action.kind)) +
                                 " on bitmap " + plan.name + " failed");
          }
        }
      },  // What was done before an error is stored.
      [&] { return close_all(nodes); });
  caller.progress(plan.actions.size(), plan.actions.size());
}

Task<Value> read_bitmaps(Context& context, OpenRequest request, std::string name) {
  request.flags.no_backing = true;
  NodePtr node = co_await open_node(context, std::move(request));
  Value bitmaps = Value::array();
  co_await finally(
      [&]() -> Task<void> {
        if (!supports_bitmaps(*node) && node->bitmaps().empty())
          throw Error(ErrorKind::kUnsupported, "'" + name + "' has the format " +
                                                   std::string(node->driver().name()) +
                                                   ", which keeps no bitmaps");
        for (const DirtyBitmapPtr& bitmap : node->bitmaps().list())
          bitmaps.push_back(bitmap_entry(*bitmap));
        co_return;
      },
      [&] { return close_all({node}); });
  co_return bitmaps;
}

}  // namespace cairn::operation
