// CD-ROM drives whose media come and go, played by a file and a drive that says what it is told.
#include "protocol/file/cdrom.h"

#include <fcntl.h>

#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

struct Told {
  CdromDrive::Status status = CdromDrive::Status::kReady;
  bool changed = false;
};

class PlayedDrive : public CdromDrive {
 public:
  explicit PlayedDrive(Told& told) : told_(told) {}
  Status status() override { return told_.status; }
  bool medium_changed() override { return told_.changed; }

 private:
  Told& told_;
};

class Cdrom : public testing::Test {
 protected:
  Cdrom() {
    std::ofstream(folder_.file("disc")) << std::string(8192, 'x');
    const int fd = ::open(folder_.file("disc").c_str(), O_RDWR | O_CLOEXEC);
    node_ = std::make_shared<CdromNode>(world_.context, *world_.context.registry().find("file"),
                                        "disc", fd, std::make_unique<PlayedDrive>(told_));
    node_->inspect(false);
  }
  ~Cdrom() override { world_.run(node_->close()); }
  std::string read() {
    std::vector<std::byte> bytes(2048);
    return error_of([&] { world_.run(node_->read(4096, bytes)); });
  }
  World world_;
  Folder folder_;
  Told told_;
  std::shared_ptr<CdromNode> node_;
};

TEST_F(Cdrom, ReadsItsMedium) {
  EXPECT_EQ(node_->length(), 8192u);
  EXPECT_EQ(read(), "");
}

TEST_F(Cdrom, NothingIsReadWithoutAMedium) {
  for (const auto status : {CdromDrive::Status::kNoMedium, CdromDrive::Status::kTrayOpen,
                            CdromDrive::Status::kNotReady}) {
    told_.status = status;
    EXPECT_EQ(read(), "No medium found");
    EXPECT_EQ(error_of([&] { world_.run(node_->extent_at(0, 512)); }), "No medium found");
  }
  told_.status = CdromDrive::Status::kReady;
  EXPECT_EQ(read(), "");
}

TEST_F(Cdrom, HintsTellWhatToDo) {
  EXPECT_TRUE(no_medium(CdromDrive::Status::kNoMedium).hints().empty());
  EXPECT_EQ(no_medium(CdromDrive::Status::kTrayOpen).hints().size(), 1u);
  EXPECT_EQ(no_medium(CdromDrive::Status::kNotReady).hints().size(), 1u);
  EXPECT_EQ(no_medium(CdromDrive::Status::kTrayOpen).kind(), ErrorKind::kNoMedium);
}

// The drive may tell of a change once only.
TEST_F(Cdrom, AnotherMediumIsNeverReadInPlaceOfTheFirst) {
  told_.changed = true;
  EXPECT_NE(read().find("the medium in the drive was changed"), std::string::npos);
  told_.changed = false;
  EXPECT_NE(read().find("the medium in the drive was changed"), std::string::npos);
}

}  // namespace
}  // namespace cairn
