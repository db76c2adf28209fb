// Writes the few ACPI machine language terms our DSDT needs. ACPI 6.4 chapter 20.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace us::hv {

class Aml {
 public:
  // Raw terms, in order.
  Aml& add(const Aml& terms) { return raw(terms.bytes()); }
  Aml& raw(ByteSpan bytes) {
    out_.put_bytes(bytes);
    return *this;
  }
  Aml& op(uint8_t code) {
    out_.put(code);
    return *this;
  }

  // `name`: segments of four characters, optionally after a backslash: "\\_SB_", "_CRS".
  Aml& name_string(std::string_view name);
  Aml& integer(uint64_t value);
  // An EISA identifier such as "PNP0A03" as a compressed integer. ACPI 6.4 19.3.4.
  Aml& eisa_id(std::string_view id);
  Aml& buffer(ByteSpan bytes);
  Aml& package(const std::vector<Aml>& elements);

  Aml& name(std::string_view name, const Aml& value);
  Aml& scope(std::string_view name, const Aml& body);
  Aml& device(std::string_view name, const Aml& body);
  Aml& method(std::string_view name, uint8_t argument_count, const Aml& body);
  Aml& if_true(const Aml& condition, const Aml& body);
  Aml& return_value(const Aml& value);

  const Bytes& bytes() const { return out_.bytes(); }

  static Aml number(uint64_t value) { return Aml().integer(value); }

 private:
  // Package length and contents. ACPI 6.4 20.2.4.
  Aml& sized(const Bytes& contents);

  ByteWriter out_;
};

}  // namespace us::hv
