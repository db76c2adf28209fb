#include "ipt/epoch_digest.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <string>

#include "tests/unit/ipt/trace_run.h"

namespace us::ipt::test {
namespace {

EpochDigest example() {
  EpochDigest digest = digest_of_run(random_run(1, 20000));
  digest.bounds.epoch = 77;
  digest.bounds.start.rcx = 5;
  digest.setup.errata = 6;
  digest.setup.linear_addresses = true;
  digest.loss = {1, 2, 4, 8, true};
  return digest;
}

Bytes encoded(const EpochDigest& digest) {
  ByteWriter out;
  digest.encode(out);
  return out.take();
}

}  // namespace

TEST_CASE("a digest decodes to what was encoded, and is small") {
  const EpochDigest digest = example();
  const Bytes bytes = encoded(digest);
  CHECK(bytes.size() < 600);
  ByteReader in(bytes);
  const auto back = decode_epoch_digest(in);
  REQUIRE(back.ok());
  CHECK(back.value() == digest);
  CHECK(in.at_end());
}

TEST_CASE("version 1 of the encoding and of the normal form are what they were") {
  const std::vector<Step> run = {{Step::kConditional, 1},
                                 {Step::kIndirect, 0x401000},
                                 {Step::kAsync, 0x401004, 0xffffffff81000010},
                                 {Step::kCr3, 0x5000},
                                 {Step::kFarBranch, 0x402000, kExecD}};
  EpochDigest digest = digest_of_run(run);
  digest.bounds.epoch = 300;
  const Bytes bytes = encoded(digest);
  std::string hex;
  for (const uint8_t byte : bytes) hex += fmt::format("{:02x}", byte);
  CHECK(hex ==
        "010013815000ac020000000081ffffffff0001efcdab81ffffffff000000000000000081ffffffff"
        "efcdab81ffffffff0101804000891f9a5562a1ace9ae5071a4d692e5f001b273ec2a390c139b0280"
        "0100a9a40273a04258d6221791217ce9d4e901f5784967ba7976860110000b83f7f03cf8b53db3cf"
        "899334cf19dd01c7f02f0086e3fe9e011000e63f3ebca16f02c7116268593c7b98d301e1aa69d6fc"
        "1bebfa0110009f427c7b2ef469b3acc836a06010425b015bc8e205f782cd6c");
}

TEST_CASE("a digest cut short at any byte is refused as truncated") {
  const Bytes bytes = encoded(example());
  for (size_t n = 0; n < bytes.size(); ++n) {
    CAPTURE(n);
    ByteReader in(ByteSpan(bytes).first(n));
    const auto back = decode_epoch_digest(in);
    REQUIRE(!back.ok());
    CHECK(back.error() == DigestDecodeError::kTruncated);
  }
}

TEST_CASE("a digest of another version, or with flags not known, is refused") {
  Bytes bytes = encoded(example());
  bytes[0] ^= 0x40;
  ByteReader version(bytes);
  CHECK(decode_epoch_digest(version).error() == DigestDecodeError::kUnknownVersion);
  bytes[0] ^= 0x40;
  bytes[2] |= 0x80;
  ByteReader flags(bytes);
  CHECK(decode_epoch_digest(flags).error() == DigestDecodeError::kUnknownVersion);
}

TEST_CASE("random bytes as a digest are decoded safely and what decodes can be compared") {
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    CAPTURE(seed);
    VariationRandom random(seed);
    Bytes bytes = encoded(example());
    for (int i = 0; i < 3; ++i) bytes[3 + random.below(bytes.size() - 3)] = random.next() >> 56;
    ByteReader in(bytes);
    const auto back = decode_epoch_digest(in);
    if (!back.ok()) continue;
    const Comparison found = compare(back.value(), example());
    CHECK(!found.text().empty());
    for (const auto& difference : found.differences) {
      if (difference) CHECK(difference->first_item <= difference->end_item);
    }
  }
}

TEST_CASE("a trace with more or fewer branches than the counter is a counter mismatch") {
  const std::vector<Step> run = random_run(2, 1000);
  const EpochDigest good = digest_of_run(run);
  EpochDigest overcounted = good;
  overcounted.bounds.end.branches += 1;
  const Comparison found = compare(good, overcounted);
  CHECK(found.verdict == Verdict::kCounterMismatch);
  CHECK(!found.mismatch_a);
  CHECK(found.mismatch_b);
  CHECK(found.text() == "counter-mismatch (second): end address");
}

TEST_CASE("digests of different epochs, setups or versions are not compared") {
  const EpochDigest one = digest_of_run(random_run(3, 100));
  EpochDigest other = one;
  other.bounds.epoch += 1;
  CHECK(compare(one, other).verdict == Verdict::kIncomparable);
  other = one;
  other.setup.linear_addresses = true;
  CHECK(compare(one, other).verdict == Verdict::kIncomparable);
  other = one;
  other.version += 1;
  CHECK(compare(one, other).verdict == Verdict::kIncomparable);
  CHECK(compare(one, one).verdict == Verdict::kEqual);
  CHECK(compare(one, one).text() == "equal");
}

TEST_CASE("loss on either side is unknown even where the streams differ") {
  const EpochDigest one = digest_of_run(random_run(4, 100));
  EpochDigest other = digest_of_run(random_run(5, 100));
  other.bounds = one.bounds;
  other.loss.overflows = 1;
  CHECK(compare(one, other).verdict == Verdict::kUnknown);
  CHECK(compare(other, one).verdict == Verdict::kUnknown);
}

TEST_CASE("a shorter stream differs in the block where it ends") {
  std::vector<Step> run(100000, Step{Step::kConditional, 1});
  const EpochDigest longer = digest_of_run(run);
  run.resize(20000);
  EpochDigest shorter = digest_of_run(run);
  shorter.bounds = longer.bounds;
  const auto found =
      first_difference(longer.stream(Stream::kBranches), shorter.stream(Stream::kBranches));
  REQUIRE(found.has_value());
  CHECK(found->first_item <= 20000);
  CHECK(found->end_item > 20000);
}

TEST_CASE("streams of very different length are compared at the coarser one's blocks") {
  VariationRandom random(6);
  std::vector<Step> run;
  for (size_t i = 0; i < 400000; ++i) run.push_back({Step::kConditional, random.below(2)});
  const EpochDigest longer = digest_of_run(run);
  run.resize(50000);
  const EpochDigest shorter = digest_of_run(run);
  CHECK(longer.stream(Stream::kBranches).leaves_per_block_log2 >
        shorter.stream(Stream::kBranches).leaves_per_block_log2);
  const auto found =
      first_difference(longer.stream(Stream::kBranches), shorter.stream(Stream::kBranches));
  REQUIRE(found.has_value());
  CHECK(found->first_item <= 50000);
  CHECK(found->end_item > 50000 - 8192);
  CHECK(found->first_item >= 50000 - 4 * 8192);
}

TEST_CASE("swapping two leaves of a stream changes block hash and digest") {
  const Bytes a(64, 1);
  const Bytes b(64, 2);
  StreamHasher one(8);
  one.add_leaf(a);
  one.add_leaf(b);
  StreamHasher two(8);
  two.add_leaf(b);
  two.add_leaf(a);
  const StreamDigest first = one.finish(16);
  const StreamDigest second = two.finish(16);
  CHECK(first.blocks[0] != second.blocks[0]);
  CHECK(!(first.digest == second.digest));
}

}  // namespace us::ipt::test
