#pragma once

#include <string>
#include <vector>

#include "block/capabilities/checkable.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/storage_use.h"
#include "block/joined_node.h"
#include "block/open.h"
#include "format/parallels/bundle.h"

namespace cairn {

// The disk that a bundle directory describes: the state on top of its snapshots, or one of them. It
// has no structure of its own besides the list of its images, which are on top of each other as
// backing files do. Only the uppermost is written.
class ParallelsBundle : public JoinedNode,
                        public ImageInfo,
                        public StorageUse,
                        public SnapshotView,
                        public Checkable {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse, SnapshotView, Checkable>;

  ParallelsBundle(Context& context, const Driver& driver, NodePtr file);

  // Reads the descriptor and opens the images of one state. Throws; what was opened belongs to the
  // node then as well.
  Task<void> load(OpenContext& request);

  Value snapshots_info() const override;
  Task<void> show_snapshot(std::string id, std::string name) override;
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  bool reports_cluster_bytes() const override { return false; }
  Task<CheckResult> check(CheckRequest request) override;
  Task<std::optional<uint64_t>> allocated_bytes() override;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }

 private:
  struct Layer {
    parallels::BundleImage image;
    Node* node = nullptr;
  };
  // A piece of the disk: the images that decide it, the uppermost last.
  struct Part {
    std::vector<Layer> layers;
  };
  Task<Node*> open_part(OpenContext& request, Part& part, uint64_t length,
                        std::vector<parallels::BundleImage> chain);
  Task<NodePtr> open_layer(OpenContext& request, const parallels::BundleImage& image,
                           std::string path, NodePtr below, uint64_t bytes);
  Task<void> check_layer(const Layer& layer, const CheckRequest& request, bool several,
                         CheckResult& total);
  std::string path_of(const parallels::BundleImage& image) const;
  bool is_inside(const std::string& path) const;

  parallels::BundleDescriptor descriptor_;
  std::string folder_;              // with a slash at its end
  std::vector<Part> parts_;         // empty: only names are wanted
  std::vector<std::string> paths_;  // of all that is open
};

}  // namespace cairn
