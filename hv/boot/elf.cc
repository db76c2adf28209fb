#include "hv/boot/elf.h"

#include <elf.h>
#include <fmt/format.h>

#include "hv/boot/boot_errors.h"
#include "hv/boot/image_bytes.h"

namespace us::hv {

namespace {

constexpr size_t kMaxProgramHeaders = 128;
constexpr size_t kMaxNotes = 4096;
constexpr uint32_t kXenPhys32Entry = 18;  // Xen public/elfnote.h: XEN_ELFNOTE_PHYS32_ENTRY

struct ProgramHeader {
  uint32_t type = 0;
  uint64_t offset = 0, physical = 0, file_size = 0, memory_size = 0;
};

UserError malformed(const std::string& name, std::string seen, std::string needed) {
  return boot_error("BOOT-008", fmt::format("{} is a malformed ELF image", name), std::move(seen),
                    std::move(needed), "give an unharmed x86 kernel");
}

UserError cut_short(const std::string& name, std::string seen) {
  return boot_error("BOOT-004", fmt::format("{} is cut short", name), std::move(seen),
                    "the whole image", "copy or download the file again");
}

template <class Header>
ProgramHeader read_header(ByteSpan image, uint64_t at) {
  Header header{};
  std::memcpy(&header, image.data() + at, sizeof header);
  return {header.p_type, header.p_offset, header.p_paddr, header.p_filesz, header.p_memsz};
}

// A note of name "Xen" and type 18 holds the PVH entry, in 4 or 8 bytes.
std::optional<uint64_t> find_pvh_entry(ByteSpan notes) {
  uint64_t at = 0;
  for (size_t i = 0; i < kMaxNotes && in_bounds(at, sizeof(Elf32_Nhdr), notes.size()); ++i) {
    const uint32_t name_size = load_at<uint32_t>(notes, at);
    const uint32_t data_size = load_at<uint32_t>(notes, at + 4);
    const uint32_t type = load_at<uint32_t>(notes, at + 8);
    const uint64_t name_at = at + 12;
    const uint64_t data_at = name_at + ((uint64_t{name_size} + 3) & ~3ull);
    if (!in_bounds(data_at, data_size, notes.size())) return std::nullopt;
    if (type == kXenPhys32Entry && name_size == 4 &&
        std::memcmp(notes.data() + name_at, "Xen", 4) == 0) {
      if (data_size >= 8) return load_at<uint64_t>(notes, data_at);
      if (data_size >= 4) return load_at<uint32_t>(notes, data_at);
    }
    at = data_at + ((uint64_t{data_size} + 3) & ~3ull);
  }
  return std::nullopt;
}

Status take_header(ElfImage& elf, ByteSpan image, const ProgramHeader& header,
                   const std::string& name) {
  if (header.type != PT_LOAD && header.type != PT_NOTE) return Done{};
  if (!in_bounds(header.offset, header.file_size, image.size()))
    return cut_short(name, fmt::format("a segment of {} bytes at offset {} in a file of {} bytes",
                                       header.file_size, header.offset, image.size()));
  const ByteSpan bytes = image.subspan(header.offset, header.file_size);
  if (header.type == PT_NOTE) {
    if (!elf.pvh_entry) elf.pvh_entry = find_pvh_entry(bytes);
    return Done{};
  }
  if (header.memory_size == 0) return Done{};
  if (header.file_size > header.memory_size)
    return malformed(name,
                     fmt::format("a segment with {} bytes in {} bytes of memory", header.file_size,
                                 header.memory_size),
                     "segments no larger in the file than in memory");
  elf.segments.push_back({header.physical, header.memory_size, bytes});
  return Done{};
}

template <class FileHeader, class SegmentHeader>
Result<ElfImage> parse(ByteSpan image, const std::string& name, bool is_64) {
  if (image.size() < sizeof(FileHeader))
    return cut_short(name, fmt::format("{} bytes", image.size()));
  FileHeader file{};
  std::memcpy(&file, image.data(), sizeof file);
  if (file.e_machine != EM_386 && file.e_machine != EM_X86_64)
    return malformed(name, fmt::format("machine {}", file.e_machine), "x86 (3) or x86-64 (62)");
  if (file.e_phentsize != sizeof(SegmentHeader) || file.e_phnum == 0 ||
      file.e_phnum > kMaxProgramHeaders)
    return malformed(name,
                     fmt::format("{} program headers of {} bytes", file.e_phnum, file.e_phentsize),
                     fmt::format("1 to {} of {} bytes", kMaxProgramHeaders, sizeof(SegmentHeader)));
  if (!in_bounds(file.e_phoff, uint64_t{file.e_phnum} * sizeof(SegmentHeader), image.size()))
    return cut_short(name, "program headers past the end of the file");
  ElfImage elf;
  elf.is_64 = is_64;
  elf.entry = file.e_entry;
  for (unsigned i = 0; i < file.e_phnum; ++i) {
    const auto header =
        read_header<SegmentHeader>(image, file.e_phoff + uint64_t{i} * sizeof(SegmentHeader));
    if (Status status = take_header(elf, image, header, name); !status) return status.error();
  }
  if (elf.segments.empty()) return malformed(name, "no PT_LOAD segment", "at least one");
  return elf;
}

}  // namespace

bool looks_like_elf(ByteSpan image) {
  return image.size() >= SELFMAG && std::memcmp(image.data(), ELFMAG, SELFMAG) == 0;
}

Result<ElfImage> parse_elf(ByteSpan image, const std::string& name) {
  if (image.size() < EI_NIDENT) return cut_short(name, fmt::format("{} bytes", image.size()));
  if (image[EI_DATA] != ELFDATA2LSB)
    return malformed(name, fmt::format("data encoding {}", image[EI_DATA]), "little-endian (1)");
  switch (image[EI_CLASS]) {
    case ELFCLASS32: return parse<Elf32_Ehdr, Elf32_Phdr>(image, name, false);
    case ELFCLASS64: return parse<Elf64_Ehdr, Elf64_Phdr>(image, name, true);
    default:
      return malformed(name, fmt::format("class {}", image[EI_CLASS]), "32-bit (1) or 64-bit (2)");
  }
}

}  // namespace us::hv
