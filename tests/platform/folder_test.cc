// Directories that are held open, whatever the system is.
#include "platform/folder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "platform/directory.h"
#include "platform/lock.h"
#include "platform/system.h"

#ifdef _WIN32
#include <windows.h>
// After it.
#include <sddl.h>
#endif

namespace cairn::platform {
namespace {

namespace fs = std::filesystem;

// Everybody may change what is in the directory.
void give_to_all(const std::string& path) {
#ifdef _WIN32
  PSECURITY_DESCRIPTOR rule = nullptr;
  ::ConvertStringSecurityDescriptorToSecurityDescriptorW(L"D:P(A;;FA;;;WD)", SDDL_REVISION_1, &rule,
                                                         nullptr);
  const std::wstring wide = fs::path(path).wstring();
  EXPECT_NE(::SetFileSecurityW(wide.c_str(), DACL_SECURITY_INFORMATION, rule), 0);
  ::LocalFree(rule);
#else
  fs::permissions(path, fs::perms::all);
#endif
}

class Folder : public testing::Test {
 protected:
  Folder() {
    uint64_t number = 0;
    EXPECT_TRUE(random_bytes(&number, sizeof number));
    path_ = fs::temp_directory_path().string() + "/cairn-folder-" + std::to_string(number);
    EXPECT_EQ(make_directory(path_), 0);
    folder_ = open_folder(path_);
    EXPECT_GE(folder_, 0);
  }
  ~Folder() override {
    platform::close(folder_);
    fs::remove_all(path_);
  }
  void make(const std::string& name, const std::string& text = "x") const {
    const int fd = open_in(folder_, name, O_WRONLY | O_CREAT | O_EXCL);
    ASSERT_GE(fd, 0) << error_text(errno);
    EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    platform::close(fd);
  }
  std::vector<std::string> names() const {
    auto found = names_in(folder_, 100);
    EXPECT_TRUE(found) << error_text(errno);
    if (!found) return {};
    std::sort(found->begin(), found->end());
    return *found;
  }

  std::string path_;
  int folder_ = -1;
};

TEST_F(Folder, NamesInIt) {
  EXPECT_EQ(names(), std::vector<std::string>{});
  make("a");
  make("ü");
  EXPECT_EQ(make_directory_in(folder_, "d", 0700), 0);
  EXPECT_EQ(make_directory_in(folder_, "d", 0700), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "d", "ü"}));
  EXPECT_EQ(names_in(folder_, 1)->size(), 2);
  EXPECT_EQ(open_in(folder_, "a", O_WRONLY | O_CREAT | O_EXCL), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(open_in(folder_, "b", O_RDONLY), -1);
  EXPECT_EQ(errno, ENOENT);
  const auto file = status_in(folder_, "a");
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->is_regular());
  EXPECT_EQ(file->size, 1);
  EXPECT_FALSE(file->write_protected);
  EXPECT_TRUE(file->same_file(*status(path_ + "/a")));
  EXPECT_TRUE(status_in(folder_, "d")->is_directory());
  EXPECT_FALSE(status_in(folder_, "b"));
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(Folder, WhatIsRemoved) {
  make("a");
  EXPECT_EQ(make_directory_in(folder_, "d", 0700), 0);
  EXPECT_EQ(remove_in(folder_, "d"), -1);
  EXPECT_TRUE(errno == EISDIR || errno == EPERM) << errno;
  EXPECT_EQ(remove_directory_in(folder_, "a"), -1);
  EXPECT_EQ(errno, ENOTDIR);
  const int inner = open_below(folder_, "d", O_RDONLY | O_DIRECTORY, Links::kRefuse);
  ASSERT_GE(inner, 0) << error_text(errno);
  const int file = open_in(inner, "b", O_WRONLY | O_CREAT);
  ASSERT_GE(file, 0);
  EXPECT_EQ(remove_directory_in(folder_, "d"), -1);
  EXPECT_EQ(errno, ENOTEMPTY);
  // Also while it is open.
  EXPECT_EQ(remove_in(inner, "b"), 0) << error_text(errno);
  EXPECT_EQ(write(file, "y", 1), 1);
  // Wine keeps the name until then.
  EXPECT_TRUE(status_of(file)->links == 0 || status_in(inner, "b"));
  platform::close(file);
  platform::close(inner);
  EXPECT_EQ(remove_directory_in(folder_, "d"), 0) << error_text(errno);
  EXPECT_EQ(remove_in(folder_, "a"), 0);
  EXPECT_EQ(remove_in(folder_, "a"), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(names(), std::vector<std::string>{});
}

TEST_F(Folder, WhatIsRenamed) {
  make("a", "one");
  make("b", "two!");
  EXPECT_EQ(rename_in(folder_, "a", folder_, "b", Overwrite::kNo), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(rename_in(folder_, "a", folder_, "b", Overwrite::kYes), 0) << error_text(errno);
  EXPECT_EQ(status_in(folder_, "b")->size, 3);
  EXPECT_EQ(make_directory_in(folder_, "d", 0700), 0);
  const int inner = open_below(folder_, "d", O_PATH | O_DIRECTORY, Links::kRefuse);
  ASSERT_GE(inner, 0);
  EXPECT_EQ(rename_in(folder_, "b", inner, "c", Overwrite::kNo), 0) << error_text(errno);
  platform::close(inner);
  EXPECT_EQ(names(), std::vector<std::string>{"d"});
  EXPECT_EQ(status_below(folder_, "d/c", Links::kRefuse)->size, 3);
  EXPECT_EQ(rename_in(folder_, "d", folder_, "e", Overwrite::kNo), 0) << error_text(errno);
  EXPECT_FALSE(status_below(folder_, "d/c", Links::kRefuse));
  EXPECT_EQ(errno, ENOENT);
  const int file = open_below(folder_, "e/c", O_RDONLY, Links::kRefuse);
  ASSERT_GE(file, 0);
  char text[4];
  EXPECT_EQ(read(file, text, 4), 3);
  EXPECT_EQ(std::string(text, 3), "one");
  platform::close(file);
}

TEST_F(Folder, TimesAndRights) {
  make("a");
  EXPECT_EQ(set_modified_in(folder_, "a", 1000000001), 0);
  EXPECT_EQ(status_in(folder_, "a")->modified, 1000000001);
  const int fd = open_in(folder_, "a", O_RDWR);
  EXPECT_EQ(set_modified(fd, 1000000003), 0);
  EXPECT_EQ(status_of(fd)->modified, 1000000003);
  make("b");
  EXPECT_EQ(copy_rights(folder_, "b", fd), 0) << error_text(errno);
  EXPECT_EQ(copy_rights(folder_, "c", fd), -1);
  EXPECT_EQ(errno, ENOENT);
  // A directory for its owner, as make_directory() makes it.
  EXPECT_EQ(rights_of(folder_), Rights::kOwn);
  give_to_all(path_);
  EXPECT_EQ(rights_of(folder_), Rights::kOwnButOthersWrite);
  EXPECT_EQ(sync_volume(fd), 0);
  platform::close(fd);
}

TEST_F(Folder, OneProgramAloneOrManyThatRead) {
  const int other = open_folder(path_);
  EXPECT_EQ(lock_folder(folder_, Sharing::kShared), 0) << error_text(errno);
  EXPECT_EQ(lock_folder(other, Sharing::kShared), 0) << error_text(errno);
  EXPECT_EQ(lock_folder(other, Sharing::kExclusive), -1);
  EXPECT_EQ(errno, EAGAIN);
  platform::close(folder_);
  EXPECT_EQ(lock_folder(other, Sharing::kExclusive), 0) << error_text(errno);
  folder_ = open_folder(path_);
  ASSERT_GE(folder_, 0);
  EXPECT_EQ(lock_folder(folder_, Sharing::kExclusive), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(lock_folder(folder_, Sharing::kShared), -1);
  // What is in it is used meanwhile.
  make("a");
  EXPECT_EQ(rename_in(folder_, "a", folder_, "b", Overwrite::kNo), 0);
  EXPECT_EQ(remove_in(folder_, "b"), 0);
  platform::close(other);
  EXPECT_EQ(lock_folder(folder_, Sharing::kExclusive), 0);
}

TEST_F(Folder, FilesAreLockedForMany) {
  make("a");
  const int one = open_in(folder_, "a", O_RDWR);
  const int two = open_in(folder_, "a", O_RDWR);
  EXPECT_EQ(lock_file_shared(one), 0);
  EXPECT_EQ(lock_file_shared(two), 0);
  platform::close(two);
  const int three = open_in(folder_, "a", O_RDWR);
  EXPECT_EQ(lock_file(three), -1);
  EXPECT_EQ(errno, EAGAIN);
  platform::close(one);
  EXPECT_EQ(lock_file(three), 0);
  platform::close(three);
}

#ifndef _WIN32
// Under wine nobody can make links.
TEST_F(Folder, LinksLeadNowhereElse) {
  make("a", "inside");
  EXPECT_EQ(make_directory_in(folder_, "d", 0700), 0);
  fs::create_symlink("a", path_ + "/near");
  fs::create_directory_symlink(fs::temp_directory_path(), path_ + "/far");
  fs::create_directory_symlink("d", path_ + "/folder");
  EXPECT_EQ(open_in(folder_, "near", O_RDONLY), -1);
  EXPECT_EQ(errno, ELOOP);
  EXPECT_EQ(status_in(folder_, "near")->type, FileType::kLink);
  EXPECT_EQ(status_below(folder_, "near", Links::kRefuse)->type, FileType::kLink);
  EXPECT_EQ(status_below(folder_, "near", Links::kFollow)->size, 6);
  EXPECT_EQ(open_below(folder_, "near", O_RDONLY, Links::kRefuse), -1);
  EXPECT_EQ(errno, ELOOP);
  EXPECT_EQ(open_below(folder_, "far", O_RDONLY | O_DIRECTORY, Links::kFollow), -1);
  EXPECT_EQ(errno, EXDEV);
  const int inner = open_below(folder_, "folder", O_RDONLY | O_DIRECTORY, Links::kFollow);
  EXPECT_GE(inner, 0);
  platform::close(inner);
  EXPECT_EQ(remove_in(folder_, "near"), 0);
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "d", "far", "folder"}));
}
#endif

}  // namespace
}  // namespace cairn::platform
