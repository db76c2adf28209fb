// A file that replaces another whole or not at all, where all goes well and where it does not.
#include "base/draft_file.h"

#include <cerrno>
#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <iterator>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file_io.h"

namespace us {
namespace {

namespace fs = std::filesystem;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = fs::temp_directory_path() / "us-base-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() { fs::remove_all(path_); }

  fs::path file() const { return path_ / "file"; }
  const fs::path& path() const { return path_; }
  size_t entries() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

mode_t mode_of(const fs::path& path) {
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  return info.st_mode & 0777;
}

bool put(const fs::path& path, std::string_view text) {
  DraftFile draft(path);
  return draft.write(text) && draft.commit();
}

// In a process of its own, because limits, umask and user hold for a process. `body` gives the
// child's exit status.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a committed draft holds all that was written, and nothing else is in its folder") {
  for (const bool durable : {false, true}) {
    TemporaryFolder folder;
    REQUIRE(put(folder.file(), "a longer text that was there before"));
    DraftFile draft(folder.file(), {.durable = durable});
    CHECK(draft.write("new "));
    CHECK(draft.write(std::string_view("\0bytes", 6)));
    CHECK(draft.commit());
    CHECK(draft.error() == 0);
    CHECK(read(folder.file()) == std::string("new \0bytes", 10));
    CHECK(folder.entries() == 1);
    CHECK(sync_folder(folder.path()) == 0);
  }
}

TEST_CASE("until the commit the target holds what it held") {
  TemporaryFolder folder;
  REQUIRE(put(folder.file(), "old"));
  DraftFile draft(folder.file());
  REQUIRE(draft.write("new"));
  CHECK(read(folder.file()) == "old");
  CHECK(draft.commit());
  CHECK(read(folder.file()) == "new");
}

TEST_CASE("a draft given up leaves the target as it was, and no draft behind") {
  TemporaryFolder folder;
  { CHECK(DraftFile(folder.file()).write("never there")); }
  CHECK(folder.entries() == 0);
  REQUIRE(put(folder.file(), "old"));
  { CHECK(DraftFile(folder.file()).write("new")); }
  CHECK(read(folder.file()) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("of two drafts of one target each stays whole, and the last one committed is there") {
  TemporaryFolder folder;
  DraftFile first(folder.file()), second(folder.file());
  CHECK(first.write("of the first"));
  CHECK(second.write("of the second"));
  CHECK(second.commit());
  CHECK(read(folder.file()) == "of the second");
  CHECK(first.commit());
  CHECK(read(folder.file()) == "of the first");
  CHECK(folder.entries() == 1);
}

TEST_CASE("the file has the mode asked for, less the umask") {
  TemporaryFolder folder;
  CHECK(in_child([&] {
          ::umask(027);
          if (!put(folder.file(), "of the group too")) return 1;
          DraftFile draft(folder.path() / "secret", {.mode = 0600});
          return draft.commit() ? 0 : 2;
        }) == 0);
  CHECK(mode_of(folder.file()) == 0640);
  CHECK(mode_of(folder.path() / "secret") == 0600);
}

TEST_CASE("a disk that fills is the first error, and stays it; the target is as it was") {
  TemporaryFolder folder;
  REQUIRE(put(folder.file(), "old"));
  // The limit on a file's size stands in for the full disk.
  CHECK(in_child([&] {
          std::signal(SIGXFSZ, SIG_IGN);
          const rlimit limit{5000, 5000};
          if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
          DraftFile draft(folder.file());
          const Bytes block(4000, 'x');
          if (!draft.write(block)) return 2;
          if (draft.write(block) || draft.error() != EFBIG) return 3;
          // There would be room for this one, but a file with a hole is not the file.
          if (draft.write("") || draft.commit()) return 4;
          return draft.error() == EFBIG ? 0 : 5;
        }) == 0);
  CHECK(read(folder.file()) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("in a folder that is not there the draft fails with ENOENT, and makes nothing") {
  TemporaryFolder folder;
  DraftFile draft(folder.path() / "not there" / "file");
  CHECK(draft.error() == ENOENT);
  CHECK_FALSE(draft.write("text"));
  CHECK_FALSE(draft.commit());
  CHECK(draft.error() == ENOENT);
  CHECK(folder.entries() == 0);
}

TEST_CASE("in a folder that takes no files the draft fails with EACCES; the target is as it was") {
  TemporaryFolder folder;
  REQUIRE(put(folder.file(), "old"));
  REQUIRE(::chmod(folder.path().c_str(), 0555) == 0);
  // Root may write anywhere: the child is somebody else then, where root may be that.
  constexpr int kStillRoot = 77;
  const int end = in_child([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return kStillRoot;
    DraftFile draft(folder.file());
    if (draft.write("new") || draft.commit()) return 2;
    return draft.error() == EACCES ? 0 : 3;
  });
  if (end == kStillRoot) {
    MESSAGE("SKIPPED: root here can be nobody else");
  } else {
    CHECK(end == 0);
  }
  REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
  CHECK(read(folder.file()) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("a target that is a folder fails the commit with EISDIR, and no draft stays behind") {
  TemporaryFolder folder;
  REQUIRE(fs::create_directory(folder.file()));
  {
    DraftFile draft(folder.file());
    CHECK(draft.write("text"));
    CHECK_FALSE(draft.commit());
    CHECK(draft.error() == EISDIR);
  }
  CHECK(fs::is_directory(folder.file()));
  CHECK(folder.entries() == 1);
}

TEST_CASE("write_all to a full device is ENOSPC with nothing written, and to a folder's fd EBADF") {
  const Bytes bytes(10, 'x');
  size_t written = 1;
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  REQUIRE(full >= 0);
  CHECK(write_all(full, bytes, written) == ENOSPC);
  CHECK(written == 0);
  ::close(full);
  const int folder = ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(folder >= 0);
  CHECK(write_all(folder, bytes, written) == EBADF);
  ::close(folder);
}

TEST_CASE("write_all says how much of it went out before the disk was full") {
  TemporaryFolder folder;
  CHECK(in_child([&] {
          std::signal(SIGXFSZ, SIG_IGN);
          const rlimit limit{5000, 5000};
          if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
          const int fd = ::open(folder.file().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
          size_t written = 0;
          if (write_all(fd, Bytes(8000, 'x'), written) != EFBIG) return 2;
          return written == 5000 ? 0 : 3;
        }) == 0);
}

TEST_CASE("sync_folder takes the empty path for the current folder, and is ENOENT for none") {
  CHECK(sync_folder("") == 0);
  TemporaryFolder folder;
  CHECK(sync_folder(folder.path() / "not there") == ENOENT);
}

}  // namespace us
