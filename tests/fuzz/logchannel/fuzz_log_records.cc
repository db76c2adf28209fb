// Arbitrary bytes as a frame's records. What decodes must encode again, and decode to the same.
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "logchannel/inspect.h"
#include "logchannel/record_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace us::log;
  us::ByteReader in({data, size});
  RecordDecoder decoder;
  RecordEncoder encoder;
  us::Bytes again;
  std::vector<Record> records;
  for (;;) {
    auto record = decoder.decode(in);
    if (!record || !record->has_value()) break;
    US_CHECK(within_bounds(**record));
    US_CHECK(!record_text(**record, us::LogPosition(0)).empty());
    encoder.encode(**record, again);
    records.push_back(std::move(**record));
  }
  us::ByteReader in_again(again);
  RecordDecoder second;
  for (const Record& record : records) {
    auto got = second.decode(in_again);
    US_CHECK(got.ok() && got->has_value() && **got == record, "a record changed on its way");
  }
  return 0;
}
