// Whole images of one format, which the name of the program tells: fuzz_qed opens its input as qed,
// fuzz_qcow2_image as qcow2.
#include "image.h"

static std::string format;

extern "C" int LLVMFuzzerInitialize(int*, char*** argv) {
  const std::string_view path = (*argv)[0];
  std::string_view name = path.substr(path.rfind('/') + 1);
  name.remove_prefix(std::min(name.find('_') + 1, name.size()));
  if (name.ends_with("_image")) name.remove_suffix(6);
  format = name;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return cairn::fuzzing::run_image(format.c_str(), data, size);
}
