#include "hv/devices/aml.h"

#include "base/check.h"

namespace us::hv {

namespace {

constexpr uint8_t kDualNamePrefix = 0x2e;

Bytes joined(const Aml& first, const Aml& second) {
  Bytes bytes = first.bytes();
  bytes.insert(bytes.end(), second.bytes().begin(), second.bytes().end());
  return bytes;
}

}  // namespace

Aml& Aml::name_string(std::string_view name) {
  if (!name.empty() && name.front() == '\\') {
    op('\\');
    name.remove_prefix(1);
  }
  US_CHECK(name.size() == 4 || name.size() == 8, "{}", name);
  if (name.size() == 8) op(kDualNamePrefix);
  for (char c : name) op(static_cast<uint8_t>(c));
  return *this;
}

Aml& Aml::integer(uint64_t value) {
  if (value <= 1) return op(static_cast<uint8_t>(value));  // ZeroOp, OneOp
  if (value <= 0xff) return op(0x0a).op(static_cast<uint8_t>(value));
  if (value <= 0xffff) {
    op(0x0b);
    out_.put(static_cast<uint16_t>(value));
  } else if (value <= 0xffff'ffff) {
    op(0x0c);
    out_.put(static_cast<uint32_t>(value));
  } else {
    op(0x0e);
    out_.put(value);
  }
  return *this;
}

Aml& Aml::eisa_id(std::string_view id) {
  US_CHECK(id.size() == 7, "{}", id);
  const auto digit = [](char c) {
    return static_cast<uint32_t>(c >= 'A' ? c - 'A' + 10 : c - '0');
  };
  uint32_t big_endian = 0;
  for (unsigned i = 0; i < 3; ++i)
    big_endian |= static_cast<uint32_t>(id[i] - 0x40) << (26 - 5 * i);
  for (unsigned i = 0; i < 4; ++i) big_endian |= digit(id[3 + i]) << (12 - 4 * i);
  return integer(__builtin_bswap32(big_endian));
}

Aml& Aml::sized(const Bytes& contents) {
  const size_t size = contents.size();
  if (size + 1 <= 0x3f) {
    op(static_cast<uint8_t>(size + 1));
  } else {
    const size_t extra = size + 2 <= 0xfff ? 1 : size + 3 <= 0xf'ffff ? 2 : 3;
    const size_t length = size + 1 + extra;  // counts itself
    op(static_cast<uint8_t>(extra << 6 | (length & 0xf)));
    for (size_t i = 0; i < extra; ++i) op(static_cast<uint8_t>(length >> (4 + 8 * i)));
  }
  return raw(contents);
}

Aml& Aml::buffer(ByteSpan bytes) {
  op(0x11);
  return sized(joined(number(bytes.size()), Aml().raw(bytes)));
}

Aml& Aml::package(const std::vector<Aml>& elements) {
  US_CHECK(elements.size() < 256);
  Aml contents;
  contents.op(static_cast<uint8_t>(elements.size()));
  for (const Aml& element : elements) contents.add(element);
  op(0x12);
  return sized(contents.bytes());
}

Aml& Aml::name(std::string_view name, const Aml& value) {
  return op(0x08).name_string(name).add(value);
}

Aml& Aml::scope(std::string_view name, const Aml& body) {
  op(0x10);
  return sized(joined(Aml().name_string(name), body));
}

Aml& Aml::device(std::string_view name, const Aml& body) {
  op(0x5b).op(0x82);
  return sized(joined(Aml().name_string(name), body));
}

Aml& Aml::method(std::string_view name, uint8_t argument_count, const Aml& body) {
  op(0x14);
  return sized(joined(Aml().name_string(name).op(argument_count), body));
}

Aml& Aml::if_true(const Aml& condition, const Aml& body) {
  op(0xa0);
  return sized(joined(condition, body));
}

Aml& Aml::return_value(const Aml& value) { return op(0xa4).add(value); }

}  // namespace us::hv
