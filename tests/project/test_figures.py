"""The figures of tools/figures: their limits, and that what they count is counted."""
import subprocess

import pytest

from conftest import TOP
from sources import classes_of, functions_of

pytestmark = pytest.mark.any_engine


def test_limits_are_kept():
    done = subprocess.run([TOP / "tools/figures", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| lines in `src` |" in done.stdout


TEXT = """
namespace a {
// A comment with { and class Other {
class One : public Two {
 public:
  One() : one_{1}, two_("{") {}
  virtual ~One() = default;
  virtual int get(int value) const {
    struct Inner { int x; };
    return Inner{value}.x;
  }
  bool operator==(const One&) const;
  template <class T>
  T made(std::function<void(int)> how);
  using Name = int;
  friend class Three;

 private:
  struct Nested {
    int left, right = 0;
  };
  static constexpr int kSize = 3;
  std::function<void(int)> call_;
  int one_ = 0;
  std::string two_ = "a;b";
};

const int kTable[] = {
    1,
};

int One::sum(
    int value) {
  if (value) {
    return 1;
  }
  return 2;
}
}  // namespace a
"""


def test_classes_are_counted():
    nested, one = classes_of(TEXT)
    assert (nested.name, nested.methods, nested.members) == ("Nested", 0, 2)
    assert (one.name, one.methods, one.members, one.virtuals) == ("One", 5, 3, 2)


def test_functions_are_measured():
    assert functions_of(TEXT) == [("One", 1), ("get", 4), ("One::sum", 7)]
