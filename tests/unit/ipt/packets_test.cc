#include "ipt/packets.h"

#include <doctest/doctest.h>
#include <set>
#include <vector>

#include "ipt/variation.h"
#include "tests/unit/ipt/libipt_oracle.h"

namespace us::ipt::test {
namespace {

struct Example {
  PacketKind kind;
  Bytes bytes;
};

// One or more of every kind, as the SDM draws them.
std::vector<Example> examples() {
  using K = PacketKind;
  return {
      {K::kPad, {0x00}},
      {K::kTnt8, {0x04}},
      {K::kTnt8, {0xfe}},
      {K::kTnt64, {0x02, 0xa3, 0x02, 0, 0, 0, 0, 0}},
      {K::kTnt64, {0x02, 0xa3, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}},
      {K::kTip, {0x0d}},
      {K::kTip, {0x2d, 1, 2}},
      {K::kTip, {0x4d, 1, 2, 3, 4}},
      {K::kTip, {0x6d, 1, 2, 3, 4, 5, 0x86}},
      {K::kTip, {0x8d, 1, 2, 3, 4, 5, 6}},
      {K::kTip, {0xcd, 1, 2, 3, 4, 5, 6, 7, 8}},
      {K::kTipPge, {0x71, 1, 2, 3, 4, 5, 6}},
      {K::kTipPgd, {0x01}},
      {K::kTipPgd, {0x21, 1, 2}},
      {K::kFup, {0x5d, 1, 2, 3, 4}},
      {K::kPip, {0x02, 0x43, 0x81, 1, 2, 3, 4, 5}},
      {K::kModeExec, {0x99, 0x01}},
      {K::kModeTsx, {0x99, 0x23}},
      {K::kTraceStop, {0x02, 0x83}},
      {K::kCbr, {0x02, 0x03, 0x18, 0x00}},
      {K::kTsc, {0x19, 1, 2, 3, 4, 5, 6, 7}},
      {K::kMtc, {0x59, 0x42}},
      {K::kTma, {0x02, 0x73, 1, 2, 0, 3, 1}},
      {K::kCyc, {0x0b}},
      {K::kCyc, {0x0f, 0x02}},
      {K::kCyc, {0xff, 0x03, 0x05, 0x07, 0x09, 0x0b, 0x0d, 0x0f, 0x02}},
      {K::kVmcs, {0x02, 0xc8, 1, 2, 3, 4, 5}},
      {K::kOvf, {0x02, 0xf3}},
      {K::kPsb, {2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82}},
      {K::kPsbEnd, {0x02, 0x23}},
      {K::kMnt, {0x02, 0xc3, 0x88, 1, 2, 3, 4, 5, 6, 7, 8}},
      {K::kPtw, {0x02, 0x12, 1, 2, 3, 4}},
      {K::kPtw, {0x02, 0xb2, 1, 2, 3, 4, 5, 6, 7, 8}},
      {K::kExstop, {0x02, 0x62}},
      {K::kExstop, {0x02, 0xe2}},
      {K::kMwait, {0x02, 0xc2, 1, 2, 3, 4, 5, 6, 7, 8}},
      {K::kPwre, {0x02, 0x22, 0x80, 0x12}},
      {K::kPwrx, {0x02, 0xa2, 1, 2, 3, 4, 5}},
      {K::kBbp, {0x02, 0x63, 0x84}},
      {K::kBep, {0x02, 0x33}},
      {K::kBep, {0x02, 0xb3}},
      {K::kCfe, {0x02, 0x13, 0x84, 0x20}},
      {K::kEvd, {0x02, 0x53, 0x01, 1, 2, 3, 4, 5, 6, 7, 8}},
      {K::kTrig, {0xd9, 0x80, 0x01}},
      {K::kTrig, {0xd9, 0x40, 0x01, 2, 3}},
  };
}

// What libipt says of the bytes at `offset`, compared with what we say.
void check_against_libipt(LibiptDecoder& decoder, ByteSpan bytes, size_t offset) {
  Packet ours;
  const ParseStatus status = parse_packet(bytes.data() + offset, bytes.size() - offset, 0, ours);
  pt_packet theirs;
  REQUIRE(decoder.sync_set(offset) == 0);
  const int found = decoder.next(theirs);
  if (status == ParseStatus::kOk && newer_than_libipt(ours.kind)) {
    CHECK(found == -pte_bad_opc);
  } else if (status == ParseStatus::kOk) {
    REQUIRE(found == ours.size);
    CHECK(same(comparable(ours), translated(theirs)));
  } else if (status == ParseStatus::kBad) {
    CHECK((found == -pte_bad_opc || found == -pte_bad_packet));
  } else {
    // It calls an unknown opcode bad before it knows whether the packet is all there.
    CHECK((found == -pte_eos || found == -pte_bad_opc));
  }
}

}  // namespace

TEST_CASE("every packet of the manual is recognised, sized and read as libipt reads it") {
  std::set<PacketKind> seen;
  for (const Example& example : examples()) {
    CAPTURE(name_of(example.kind));
    Packet packet;
    REQUIRE(parse_packet(example.bytes.data(), example.bytes.size(), 0, packet) ==
            ParseStatus::kOk);
    CHECK(packet.kind == example.kind);
    CHECK(packet.size == example.bytes.size());
    LibiptDecoder decoder(example.bytes);
    check_against_libipt(decoder, example.bytes, 0);
    seen.insert(example.kind);
  }
  seen.insert(PacketKind::kBip);  // only within a block: below
  CHECK(seen.size() == kPacketKinds);
}

TEST_CASE("every packet cut short asks for more bytes and never claims to be complete") {
  for (const Example& example : examples()) {
    for (size_t n = 0; n < example.bytes.size(); ++n) {
      CAPTURE(name_of(example.kind));
      CAPTURE(n);
      const Bytes cut(example.bytes.begin(), example.bytes.begin() + static_cast<ptrdiff_t>(n));
      Packet packet;
      CHECK(parse_packet(cut.data(), cut.size(), 0, packet) == ParseStatus::kNeedMore);
    }
  }
}

TEST_CASE("a block item is one only between block begin and block end") {
  const Bytes item = {0x0c, 1, 2, 3, 4, 5, 6, 7, 8};
  Packet packet;
  REQUIRE(parse_packet(item.data(), item.size(), 8, packet) == ParseStatus::kOk);
  CHECK(packet.kind == PacketKind::kBip);
  CHECK(packet.size == 9);
  REQUIRE(parse_packet(item.data(), item.size(), 4, packet) == ParseStatus::kOk);
  CHECK(packet.size == 5);
  REQUIRE(parse_packet(item.data(), item.size(), 0, packet) == ParseStatus::kOk);
  CHECK(packet.kind == PacketKind::kTnt8);
}

TEST_CASE("all pairs of first bytes, followed by anything, are judged as libipt judges them") {
  VariationRandom random(1);
  Bytes bytes(24);
  for (unsigned first = 0; first < 256; ++first) {
    for (unsigned second = 0; second < 256; ++second) {
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next() >> 40);
      bytes[0] = static_cast<uint8_t>(first);
      bytes[1] = static_cast<uint8_t>(second);
      LibiptDecoder decoder(bytes);
      check_against_libipt(decoder, bytes, 0);
    }
  }
}

TEST_CASE("at every offset of random bytes the verdict is libipt's, up to the very end") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    VariationRandom random(seed);
    Bytes bytes(4000);
    for (uint8_t& byte : bytes) {
      const uint64_t value = random.next() >> 32;
      byte = random.one_in(4) ? opcode::kExtended : static_cast<uint8_t>(value);
    }
    LibiptDecoder decoder(bytes);
    for (size_t offset = 0; offset < bytes.size(); ++offset) {
      check_against_libipt(decoder, bytes, offset);
    }
  }
}

TEST_CASE("compressed addresses expand as the manual's table says") {
  constexpr uint64_t kLast = 0x1122334455667788;
  CHECK(expand_ip(0, 0, kLast) == kLast);
  CHECK(expand_ip(1, 0xaaaa, kLast) == 0x112233445566aaaa);
  CHECK(expand_ip(2, 0xaaaabbbb, kLast) == 0x11223344aaaabbbb);
  CHECK(expand_ip(3, 0x8000aaaabbbb, kLast) == 0xffff8000aaaabbbb);
  CHECK(expand_ip(3, 0x7fffaaaabbbb, kLast) == 0x00007fffaaaabbbb);
  CHECK(expand_ip(4, 0x8000aaaabbbb, kLast) == 0x11228000aaaabbbb);
  CHECK(expand_ip(6, 0xdeadbeefcafef00d, kLast) == 0xdeadbeefcafef00d);
}

}  // namespace us::ipt::test
