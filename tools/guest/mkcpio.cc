// Writes a "newc" cpio archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst)
// from a manifest on standard input, to standard output. No root, no fakeroot, and the same
// manifest and files always give the same bytes: entries are sorted by path, owners and times are
// zero, inode numbers count up.
//
// Manifest lines, fields separated by single tabs:
//   dir PATH MODE | file PATH MODE SOURCE | link PATH TARGET | char PATH MODE MAJOR MINOR
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Entry {
  uint32_t mode = 0;
  uint32_t major = 0, minor = 0;
  std::string content;  // a file's bytes or a link's target
};

constexpr uint32_t kDirectory = 0040000, kFile = 0100000, kLink = 0120000, kCharDevice = 0020000;
constexpr size_t kBlock = 512;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "mkcpio: %s\n", what.c_str());
  std::exit(2);
}

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> fields;
  std::istringstream in(line);
  for (std::string field; std::getline(in, field, '\t');) fields.push_back(field);
  return fields;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

Entry parse(const std::vector<std::string>& f, const std::string& line) {
  const auto number = [&](size_t i, int base) {
    return static_cast<uint32_t>(std::stoul(f[i], nullptr, base));
  };
  if (f.size() == 3 && f[0] == "dir") return {kDirectory | number(2, 8), 0, 0, {}};
  if (f.size() == 4 && f[0] == "file") return {kFile | number(2, 8), 0, 0, read_file(f[3])};
  if (f.size() == 3 && f[0] == "link") return {kLink | 0777, 0, 0, f[2]};
  if (f.size() == 5 && f[0] == "char")
    return {kCharDevice | number(2, 8), number(3, 10), number(4, 10), {}};
  fail("cannot read manifest line: " + line);
}

void pad(std::string& out, size_t to) { out.resize((out.size() + to - 1) / to * to, '\0'); }

void append(std::string& out, const std::string& path, const Entry& entry, uint32_t inode) {
  const uint32_t links = (entry.mode & kDirectory) == kDirectory ? 2 : 1;
  char header[111];
  std::snprintf(header, sizeof header, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
                inode, entry.mode, 0, 0, links, 0, static_cast<unsigned>(entry.content.size()), 0,
                0, entry.major, entry.minor, static_cast<unsigned>(path.size() + 1), 0);
  out += header;
  out += path;
  out += '\0';
  pad(out, 4);
  out += entry.content;
  pad(out, 4);
}

}  // namespace

int main() {
  std::map<std::string, Entry> entries;
  for (std::string line; std::getline(std::cin, line);) {
    const std::vector<std::string> fields = split(line);
    if (fields.size() < 2) fail("cannot read manifest line: " + line);
    if (!entries.emplace(fields[1], parse(fields, line)).second) fail(fields[1] + " comes twice");
  }
  std::string out;
  uint32_t inode = 0;
  for (const auto& [path, entry] : entries) {
    // Sorted by bytes, a folder comes before what is in it; the kernel wants it made first.
    const size_t slash = path.rfind('/');
    if (slash != std::string::npos && !entries.count(path.substr(0, slash)))
      fail("no folder for " + path);
    append(out, path, entry, ++inode);
  }
  append(out, "TRAILER!!!", Entry{}, 0);
  pad(out, kBlock);
  std::cout.write(out.data(), static_cast<std::streamsize>(out.size()));
  return std::cout.flush() ? 0 : 2;
}
