#include "filter/filter.h"

namespace cairn {

FilterNode::FilterNode(OpenContext& request, NodePtr file)
    : Node(request.context, request.driver), file_(file.get()) {
  mutable_limits() = file->limits();
  set_length(file->length());
  set_unbounded(true);
  add_child("file", std::move(file), ChildRole::kFiltered);
}

Task<void> FilterNode::do_read(uint64_t offset, MutableByteSpan out) {
  return file_->read(offset, out);
}

Task<void> FilterNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  co_await file_->write(offset, in, flags);
  follow_length();
}

Task<void> FilterNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  co_await file_->write_zeroes(offset, length, flags);
  follow_length();
}

Task<void> FilterNode::do_discard(uint64_t offset, uint64_t length) {
  return file_->discard(offset, length);
}

Task<void> FilterNode::do_flush() { return file_->flush(); }

Task<Extent> FilterNode::do_extent(uint64_t offset, uint64_t max) {
  return file_->layer_extent_at(offset, max);
}

Task<void> FilterNode::do_resize(ResizeRequest request) {
  co_await file_->resize(request);
  follow_length();
}

bool FilterNode::take_child(std::string_view name, Node& child) {
  if (name != "file") return false;
  file_ = &child;
  follow_length();
  return true;
}

Value options_of(const Node& node) {
  if (node.filename().starts_with("json:"))
    return Value::parse(std::string_view(node.filename()).substr(5));
  Value tree = Value::object();
  tree.set("driver", node.driver().name());
  if (const Node* file = node.file())
    tree.set("file", options_of(*file));
  else if (node.filename() != std::string(node.driver().name()) + "://")
    tree.set("filename", node.filename());
  return tree;
}

}  // namespace cairn
