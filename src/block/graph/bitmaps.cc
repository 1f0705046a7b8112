#include "block/graph/bitmaps.h"

#include <fmt/core.h>

#include "block/capabilities/bitmap_store.h"

namespace cairn {
namespace {

constexpr size_t kLongestBitmapName = 1023;

class BitmapAction : public GraphAction {
 public:
  BitmapAction(Graph& graph, BitmapPlace place) : graph_(graph), place_(std::move(place)) {}

 protected:
  Graph& graph() const { return graph_; }
  const BitmapPlace& place() const { return place_; }
  NodePtr node() const { return graph_.lookup(place_.node); }
  DirtyBitmapPtr bitmap() const { return find_bitmap(graph_, place_); }
  // What may be read may still be in use.
  static void check_unused(const DirtyBitmap& bitmap) {
    bitmap.check_readable();
    if (bitmap.busy()) bitmap.check_changeable();
  }

 private:
  Graph& graph_;
  const BitmapPlace place_;
};

class BitmapAddAction final : public BitmapAction {
 public:
  BitmapAddAction(Graph& graph, std::string node, BitmapRequest request)
      : BitmapAction(graph, {std::move(node), request.name}), request_(std::move(request)) {}
  Task<void> prepare() override {
    if (request_.name.empty()) throw Error(ErrorKind::kInvalid, "Bitmap name cannot be empty");
    if (request_.name.size() > kLongestBitmapName)
      throw Error(ErrorKind::kInvalid, "Bitmap name too long: " + request_.name);
    const NodePtr target = graph().lookup(place().node);
    static_cast<void>(add_bitmap(*target, request_));
    co_return;
  }
  Task<void> abort() override {
    node()->bitmaps().remove(place().name);
    co_return;
  }

 private:
  const BitmapRequest request_;
};

class BitmapRemoveAction final : public BitmapAction {
 public:
  using BitmapAction::BitmapAction;
  Task<void> prepare() override {
    const DirtyBitmapPtr found = bitmap();
    if (!found->inconsistent()) found->check_changeable();
    co_return;
  }
  Task<void> commit() override {
    try {
      node()->bitmaps().remove(place().name);
    } catch (const Error&) {
      // An earlier step of the same transaction has removed it.
    }
    co_return;
  }
};

// Keeps what a bitmap had.
class BitmapChange : public BitmapAction {
 public:
  using BitmapAction::BitmapAction;
  Task<void> abort() override {
    const DirtyBitmapPtr changed = bitmap();
    changed->clear();
    changed->merge(*before_);
    co_return;
  }

 protected:
  DirtyBitmapPtr changeable() {
    DirtyBitmapPtr found = bitmap();
    found->check_changeable();
    before_ = copy_of_length(*found);
    before_->merge(*found);
    return found;
  }
  static DirtyBitmapPtr copy_of_length(const DirtyBitmap& bitmap) {
    return std::make_shared<DirtyBitmap>("", bitmap.length(), bitmap.granularity());
  }

 private:
  DirtyBitmapPtr before_;
};

class BitmapClearAction final : public BitmapChange {
 public:
  using BitmapChange::BitmapChange;
  Task<void> prepare() override {
    changeable()->clear();
    co_return;
  }
};

class BitmapEnableAction final : public BitmapAction {
 public:
  BitmapEnableAction(Graph& graph, BitmapPlace place, bool enabled)
      : BitmapAction(graph, std::move(place)), enabled_(enabled) {}
  Task<void> prepare() override {
    const DirtyBitmapPtr found = bitmap();
    check_unused(*found);
    before_ = found->enabled();
    found->set_enabled(enabled_);
    co_return;
  }
  Task<void> abort() override {
    bitmap()->set_enabled(before_);
    co_return;
  }

 private:
  const bool enabled_;
  bool before_ = false;
};

class BitmapMergeAction final : public BitmapChange {
 public:
  BitmapMergeAction(Graph& graph, BitmapPlace target, std::vector<BitmapPlace> sources)
      : BitmapChange(graph, std::move(target)), sources_(std::move(sources)) {}
  Task<void> prepare() override {
    const DirtyBitmapPtr target = changeable();
    // All of them before any is taken over.
    const DirtyBitmapPtr sum = copy_of_length(*target);
    for (const BitmapPlace& place : sources_) {
      const DirtyBitmapPtr source = find_bitmap(graph(), place);
      check_unused(*source);
      if (source->length() != target->length())
        throw Error(ErrorKind::kInvalid,
                    fmt::format("Bitmaps are of different sizes (destination size is {}, source "
                                "size is {}) and can't be merged",
                                target->length(), source->length()));
      sum->merge(*source);
    }
    target->merge(*sum);
    co_return;
  }

 private:
  const std::vector<BitmapPlace> sources_;
};

}  // namespace

DirtyBitmapPtr find_bitmap(const Graph& graph, const BitmapPlace& place) {
  const NodePtr node = graph.find(place.node);
  if (node == nullptr) throw Error(ErrorKind::kNotFound, "Node '" + place.node + "' not found");
  return node->bitmaps().get(place.name);
}

std::unique_ptr<GraphAction> bitmap_add_action(Graph& graph, std::string node,
                                               BitmapRequest request) {
  return std::make_unique<BitmapAddAction>(graph, std::move(node), std::move(request));
}

std::unique_ptr<GraphAction> bitmap_remove_action(Graph& graph, BitmapPlace place) {
  return std::make_unique<BitmapRemoveAction>(graph, std::move(place));
}

std::unique_ptr<GraphAction> bitmap_clear_action(Graph& graph, BitmapPlace place) {
  return std::make_unique<BitmapClearAction>(graph, std::move(place));
}

std::unique_ptr<GraphAction> bitmap_enable_action(Graph& graph, BitmapPlace place, bool enabled) {
  return std::make_unique<BitmapEnableAction>(graph, std::move(place), enabled);
}

std::unique_ptr<GraphAction> bitmap_merge_action(Graph& graph, BitmapPlace target,
                                                 std::vector<BitmapPlace> sources) {
  return std::make_unique<BitmapMergeAction>(graph, std::move(target), std::move(sources));
}

}  // namespace cairn
