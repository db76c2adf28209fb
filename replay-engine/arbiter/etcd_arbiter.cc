#include "replay-engine/arbiter/etcd_arbiter.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>

#include "replay-engine/arbiter/claim_record.h"

namespace us::replay {
namespace {

using nlohmann::json;
template <class T>
using Found = Result<T, std::string>;

constexpr size_t kEndpointsMax = 16;

std::string base64(const std::string& bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');  // and a zero
  out.resize(static_cast<size_t>(EVP_EncodeBlock(
      reinterpret_cast<unsigned char*>(out.data()),
      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()))));
  return out;
}

std::optional<std::string> from_base64(const std::string& text) {
  if (text.size() > 4 * kClaimBytesMax || text.size() % 4 != 0) return std::nullopt;
  std::string out(text.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  if (size < 0) return std::nullopt;
  // Padding is decoded as zero bytes.
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  out.resize(static_cast<size_t>(size) - padding);
  return out;
}

// A member of an object, of a string's type; "" otherwise.
std::string text_at(const json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

// An etcd range answer's pairs: an empty array where there are none.
json pairs_of(const json& range) {
  if (!range.is_object()) return json::array();
  const auto it = range.find("kvs");
  return it != range.end() && it->is_array() ? *it : json::array();
}

class EtcdArbiter final : public Arbiter {
 public:
  EtcdArbiter(std::vector<HttpEndpoint> endpoints, const ArbiterOptions& options)
      : endpoints_(std::move(endpoints)), me_(options) {}

  Claim claim(uint64_t generation) override;
  Result<ArbiterState> look() override;
  Status release(uint64_t generation) override;
  std::string text() const override;

 private:
  Found<json> ask(const std::string& target, const json& request);
  Found<json> ask_one(const HttpEndpoint& endpoint, const std::string& target,
                      const std::string& body, std::chrono::milliseconds timeout) const;
  Found<ClaimRecord> record_in(const json& pairs) const;
  // All keys of a VM share a prefix that no other VM's can have: names hold no '/'.
  std::string folder(const char* kind) const {
    return fmt::format("/understudy/{}/{}/", me_.vm_name, kind);
  }
  std::string key(const char* kind, uint64_t generation) const {
    return fmt::format("{}{:010}", folder(kind), generation);
  }
  // A range ends before the first key that is no key of the folder's: '0' follows '/'.
  std::string end(const char* kind) const {
    return fmt::format("/understudy/{}/{}0", me_.vm_name, kind);
  }
  json latest_request() const {
    return {{"key", base64(folder(kGeneration))},
            {"range_end", base64(end(kGeneration))},
            {"sort_order", "DESCEND"},
            {"sort_target", "KEY"},
            {"limit", "1"}};
  }

  static constexpr const char* kGeneration = "generation";
  static constexpr const char* kReleased = "released";
  const std::vector<HttpEndpoint> endpoints_;
  const ArbiterOptions me_;
  size_t first_ = 0;  // of the endpoints: the one that answered last
};

// --- Asking

// One endpoint's answer as JSON: an object.
Found<json> EtcdArbiter::ask_one(const HttpEndpoint& endpoint, const std::string& target,
                                 const std::string& body, std::chrono::milliseconds timeout) const {
  const auto answer = http_post(endpoint, target, body, timeout);
  if (!answer.ok()) return answer.error();
  json parsed = json::parse(answer->body, nullptr, false);
  if (answer->status != 200) {
    std::string why = parsed.is_discarded() ? answer->body : text_at(parsed, "error");
    if (why.size() > 200) why.resize(200);
    for (char& c : why) {
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = ' ';
    }
    return fmt::format("{}: HTTP status {}: {}", to_text(endpoint), answer->status, why);
  }
  if (!parsed.is_object()) return to_text(endpoint) + ": the answer is no etcd's";
  return parsed;
}

Found<json> EtcdArbiter::ask(const std::string& target, const json& request) {
  const std::string body = request.dump();
  const auto deadline = std::chrono::steady_clock::now() + me_.timeout;
  std::string troubles;
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    const size_t at = (first_ + i) % endpoints_.size();
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    const auto share = left / static_cast<int64_t>(endpoints_.size() - i);
    if (share.count() <= 0) break;
    auto answer = ask_one(endpoints_[at], target, body, share);
    if (answer.ok()) {
      first_ = at;
      return answer;
    }
    troubles += (troubles.empty() ? "" : "; ") + answer.error();
  }
  return troubles;
}

Found<ClaimRecord> EtcdArbiter::record_in(const json& pairs) const {
  if (pairs.size() != 1) return fmt::format("etcd answered with {} keys for one", pairs.size());
  const auto name = from_base64(text_at(pairs[0], "key"));
  const auto value = from_base64(text_at(pairs[0], "value"));
  const auto record = value ? parse_claim(*value) : std::nullopt;
  if (!name || !record) return std::string("a key of this VM's is damaged, or of another version");
  if (*name != key(kGeneration, record->generation))
    return fmt::format("etcd's key {} says generation {}", *name, record->generation);
  return *record;
}

// --- The arbiter

Claim EtcdArbiter::claim(uint64_t generation) {
  US_CHECK(generation > 0);
  if (generation > kGenerationMax) return unreachable(0, "no generation is that high");
  const ClaimRecord mine{me_.vm_name, generation, me_.node, now_as_text()};
  // True of a range without any key: none from this generation on exists.
  const json none_yet = {{"key", base64(key(kGeneration, generation))},
                         {"range_end", base64(end(kGeneration))},
                         {"target", "CREATE"},
                         {"result", "EQUAL"},
                         {"create_revision", "0"}};
  const json put = {
      {"request_put",
       {{"key", base64(key(kGeneration, generation))}, {"value", base64(format_claim(mine))}}}};
  const auto answer =
      ask("/v3/kv/txn", {{"compare", json::array({none_yet})},
                         {"success", json::array({put})},
                         {"failure", json::array({{{"request_range", latest_request()}}})}});
  if (!answer.ok()) return unreachable(0, answer.error());
  const auto succeeded = answer->find("succeeded");
  if (succeeded != answer->end() && succeeded->is_boolean() && succeeded->get<bool>()) {
    return {.verdict = ClaimVerdict::kWon, .generation = generation, .holder = me_.node};
  }
  const auto responses = answer->find("responses");
  if (responses == answer->end() || !responses->is_array() || responses->size() != 1 ||
      !(*responses)[0].is_object() || !(*responses)[0].contains("response_range"))
    return unreachable(0, "the answer is no etcd's");
  const auto record = record_in(pairs_of((*responses)[0]["response_range"]));
  return record.ok() ? judge(*record, generation, me_) : unreachable(0, record.error());
}

Result<ArbiterState> EtcdArbiter::look() {
  const auto answer = ask("/v3/kv/range", latest_request());
  if (!answer.ok()) return unreachable_error(text(), answer.error());
  if (!answer->contains("header")) return unreachable_error(text(), "the answer is no etcd's");
  const json pairs = pairs_of(*answer);
  if (pairs.empty()) return ArbiterState{};
  const auto record = record_in(pairs);
  if (!record.ok()) return unreachable_error(text(), record.error());
  if (record->vm != me_.vm_name)
    return unreachable_error(text(), judge(*record, record->generation, me_).detail);
  const auto released = ask("/v3/kv/range", {{"key", base64(key(kReleased, record->generation))}});
  if (!released.ok()) return unreachable_error(text(), released.error());
  return ArbiterState{record->generation, record->holder, !pairs_of(*released).empty()};
}

Status EtcdArbiter::release(uint64_t generation) {
  if (generation == 0 || generation > kGenerationMax) return Done{};
  const auto answer = ask("/v3/kv/range", {{"key", base64(key(kGeneration, generation))}});
  if (!answer.ok()) return unreachable_error(text(), answer.error());
  const json pairs = pairs_of(*answer);
  if (pairs.empty()) return Done{};
  const auto record = record_in(pairs);
  if (!record.ok()) return unreachable_error(text(), record.error());
  if (record->vm != me_.vm_name || record->holder != me_.node) return Done{};
  const ClaimRecord mine{me_.vm_name, generation, me_.node, now_as_text()};
  const auto put = ask("/v3/kv/put", {{"key", base64(key(kReleased, generation))},
                                      {"value", base64(format_claim(mine))}});
  if (!put.ok()) return unreachable_error(text(), put.error());
  return Done{};
}

std::string EtcdArbiter::text() const {
  std::string out = "etcd://";
  for (const HttpEndpoint& endpoint : endpoints_)
    out += (&endpoint == &endpoints_[0] ? "" : ",") + to_text(endpoint);
  return out;
}

std::optional<HttpEndpoint> parse_endpoint(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  uint32_t number = 0;
  const auto [stop, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc{} || stop != port.data() + port.size() || number == 0 || number > 65535)
    return std::nullopt;
  const std::string_view allowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%";
  if (host.empty() || host.find_first_not_of(allowed) != std::string_view::npos)
    return std::nullopt;
  return HttpEndpoint{std::string(host), std::to_string(number)};
}

}  // namespace

std::optional<std::vector<HttpEndpoint>> parse_etcd_endpoints(std::string_view text) {
  if (text.starts_with("//")) text.remove_prefix(2);
  std::vector<HttpEndpoint> out;
  while (true) {
    const size_t comma = text.find(',');
    const auto endpoint = parse_endpoint(text.substr(0, comma));
    if (!endpoint || out.size() == kEndpointsMax) return std::nullopt;
    out.push_back(*endpoint);
    if (comma == std::string_view::npos) return out;
    text.remove_prefix(comma + 1);
  }
}

std::unique_ptr<Arbiter> make_etcd_arbiter(const std::vector<HttpEndpoint>& endpoints,
                                           const ArbiterOptions& options) {
  US_CHECK(!endpoints.empty());
  return std::make_unique<EtcdArbiter>(endpoints, options);
}

}  // namespace us::replay
