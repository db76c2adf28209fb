#include "tests/unit/boot/images.h"

#include <cstring>
#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

namespace us::hv::testing {

namespace {

template <class FileHeader, class SegmentHeader>
Bytes build(const ElfRecipe& recipe, unsigned char elf_class) {
  ByteWriter note;
  if (recipe.pvh_entry) {
    note.put(uint32_t{4});
    note.put(uint32_t{8});
    note.put(uint32_t{18});
    note.put_bytes(ByteSpan(reinterpret_cast<const uint8_t*>("Xen"), 4));
    note.put(*recipe.pvh_entry);
  }
  const size_t count = recipe.segments.size() + (recipe.pvh_entry ? 1 : 0);
  FileHeader file{};
  std::memcpy(file.e_ident, ELFMAG, SELFMAG);
  file.e_ident[EI_CLASS] = elf_class;
  file.e_ident[EI_DATA] = ELFDATA2LSB;
  file.e_ident[EI_VERSION] = EV_CURRENT;
  file.e_type = ET_EXEC;
  file.e_machine = elf_class == ELFCLASS64 ? EM_X86_64 : EM_386;
  file.e_entry = static_cast<decltype(file.e_entry)>(recipe.entry);
  file.e_phoff = sizeof file;
  file.e_phentsize = sizeof(SegmentHeader);
  file.e_phnum = static_cast<uint16_t>(count);
  uint64_t offset = sizeof file + count * sizeof(SegmentHeader) + recipe.before_segments.size();
  std::vector<SegmentHeader> headers;
  const auto add = [&](uint32_t type, uint64_t physical, uint64_t size, uint64_t memory_size) {
    SegmentHeader header{};
    header.p_type = type;
    header.p_offset = static_cast<decltype(header.p_offset)>(offset);
    header.p_paddr = static_cast<decltype(header.p_paddr)>(physical);
    header.p_filesz = static_cast<decltype(header.p_filesz)>(size);
    header.p_memsz = static_cast<decltype(header.p_memsz)>(memory_size);
    headers.push_back(header);
    offset += size;
  };
  for (const Segment& s : recipe.segments)
    add(PT_LOAD, s.physical, s.bytes.size(), s.memory_size ? s.memory_size : s.bytes.size());
  if (recipe.pvh_entry) add(PT_NOTE, 0, note.size(), note.size());

  ByteWriter out;
  out.put_bytes(ByteSpan(reinterpret_cast<const uint8_t*>(&file), sizeof file));
  for (const SegmentHeader& header : headers)
    out.put_bytes(ByteSpan(reinterpret_cast<const uint8_t*>(&header), sizeof header));
  out.put_bytes(recipe.before_segments);
  for (const Segment& s : recipe.segments) out.put_bytes(s.bytes);
  out.put_bytes(note.bytes());
  return out.take();
}

Bytes gzip(ByteSpan bytes) {
  Bytes out(bytes.size() + 1024);
  z_stream stream{};
  US_CHECK(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  stream.next_in = const_cast<uint8_t*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  US_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// Linux packs with the x86 branch filter and a CRC32 check.
Bytes xz(ByteSpan bytes) {
  lzma_options_lzma options;
  US_CHECK(!lzma_lzma_preset(&options, 6));
  lzma_filter filters[] = {
      {LZMA_FILTER_X86, nullptr}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
  Bytes out(lzma_stream_buffer_bound(bytes.size()));
  size_t used = 0;
  US_CHECK(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, nullptr, bytes.data(), bytes.size(),
                                     out.data(), &used, out.size()) == LZMA_OK);
  out.resize(used);
  return out;
}

Bytes zstd(ByteSpan bytes) {
  Bytes out(ZSTD_compressBound(bytes.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}

Bytes lz4(ByteSpan bytes) {
  constexpr size_t kBlock = 8 << 20;
  ByteWriter out;
  out.put(uint32_t{0x184c2102});
  for (size_t at = 0; at < bytes.size(); at += kBlock) {
    const ByteSpan block = bytes.subspan(at, std::min(kBlock, bytes.size() - at));
    Bytes packed(static_cast<size_t>(LZ4_compressBound(static_cast<int>(block.size()))));
    const int size = LZ4_compress_default(
        reinterpret_cast<const char*>(block.data()), reinterpret_cast<char*>(packed.data()),
        static_cast<int>(block.size()), static_cast<int>(packed.size()));
    packed.resize(static_cast<size_t>(size));
    out.put_blob(packed);
  }
  return out.take();
}

}  // namespace

Bytes make_elf(const ElfRecipe& recipe) {
  return recipe.is_64 ? build<Elf64_Ehdr, Elf64_Phdr>(recipe, ELFCLASS64)
                      : build<Elf32_Ehdr, Elf32_Phdr>(recipe, ELFCLASS32);
}

Bytes pack(ByteSpan bytes, Packing packing) {
  ByteWriter out;
  switch (packing) {
    case Packing::kXz: out.put_bytes(xz(bytes)); break;
    case Packing::kZstd: out.put_bytes(zstd(bytes)); break;
    case Packing::kGzip: out.put_bytes(gzip(bytes)); return out.take();  // has its own trailer
    case Packing::kLz4: out.put_bytes(lz4(bytes)); break;
    case Packing::kBzip2Magic:
      for (const char c : {'B', 'Z', 'h', '9'}) out.put(c);
      break;
    case Packing::kNone: out.put_bytes(bytes); break;
  }
  out.put(static_cast<uint32_t>(bytes.size()));
  return out.take();
}

Bytes make_bzimage(const BzimageRecipe& recipe) {
  constexpr size_t kSetup = 5 * 512;  // boot sector and four more
  Bytes image(kSetup, 0);
  const auto store = [&](size_t at, auto value) {
    std::memcpy(image.data() + at, &value, sizeof value);
  };
  store(0x1f1, uint8_t{4});
  store(0x1fe, uint16_t{0xaa55});
  store(0x200, uint16_t{0x6aeb});  // the header ends at 0x26c
  store(0x202, uint32_t{0x53726448});
  store(0x206, recipe.version);
  store(0x20e, uint16_t{0x400});
  store(0x211, uint8_t{1});
  store(0x22c, uint32_t{0x7fff'ffff});
  store(0x236, recipe.xloadflags);
  store(0x238, uint32_t{2047});
  store(0x248, uint32_t{0x100});
  store(0x24c, static_cast<uint32_t>(recipe.payload.size()));
  store(0x260, uint32_t{0x10'0000});
  std::memcpy(image.data() + 0x600, recipe.version_text.c_str(), recipe.version_text.size() + 1);
  image.resize(kSetup + 0x100, 0xcc);
  image.insert(image.end(), recipe.payload.begin(), recipe.payload.end());
  return image;
}

Bytes multiboot_header(uint32_t flags) {
  ByteWriter out;
  out.put(uint32_t{0x1badb002});
  out.put(flags);
  out.put(uint32_t{0} - 0x1badb002 - flags);
  return out.take();
}

std::unique_ptr<GuestMemory> make_memory(uint64_t mib) {
  auto memory = GuestMemory::create(mib << 20);
  US_CHECK(memory.ok());
  return std::move(memory).value();
}

std::string peek_string(const GuestMemory& memory, uint64_t address) {
  std::string text;
  while (const char c = peek<char>(memory, address + text.size())) text.push_back(c);
  return text;
}

}  // namespace us::hv::testing
