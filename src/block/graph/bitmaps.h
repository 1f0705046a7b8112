#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/dirty_bitmap.h"
#include "block/graph/action.h"
#include "block/graph/graph.h"

namespace cairn {

// A dirty bitmap of a node of a graph.
struct BitmapPlace {
  std::string node;
  std::string name;
};

// Throws kNotFound: "Cannot find device='NODE' nor node-name='NODE'", "Dirty bitmap 'NAME' not
// found".
DirtyBitmapPtr find_bitmap(const Graph& graph, const BitmapPlace& place);

// Prepared, these throw in QEMU's words: a bitmap that is there or missing, in use, inconsistent or
// not to be changed. Whatever they change is as before when they are taken back.
std::unique_ptr<GraphAction> bitmap_add_action(Graph& graph, std::string node,
                                               BitmapRequest request);
// It is there until the transaction is committed.
std::unique_ptr<GraphAction> bitmap_remove_action(Graph& graph, BitmapPlace place);
std::unique_ptr<GraphAction> bitmap_clear_action(Graph& graph, BitmapPlace place);
std::unique_ptr<GraphAction> bitmap_enable_action(Graph& graph, BitmapPlace place, bool enabled);
// TARGET has what it has and what SOURCES have; all are of one length.
std::unique_ptr<GraphAction> bitmap_merge_action(Graph& graph, BitmapPlace target,
                                                 std::vector<BitmapPlace> sources);

}  // namespace cairn
