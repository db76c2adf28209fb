// A record as a line for people and as a line of JSON.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/crc32c.h"
#include "logchannel/inspect.h"
#include "logchannel/printable.h"

namespace us::log {
namespace {

using Json = nlohmann::ordered_json;

std::string hex(uint64_t value) { return fmt::format("{:#x}", value); }

std::string hex_bytes(ByteSpan bytes, size_t bytes_max) {
  std::string out;
  for (uint8_t byte : bytes.subspan(0, std::min(bytes.size(), bytes_max))) {
    out += fmt::format("{:02x}", byte);
  }
  return out + (bytes.size() > bytes_max ? "..." : "");
}

std::string crc(ByteSpan bytes) { return fmt::format("{:08x}", crc32c(bytes)); }

// The body as key and value pairs, in order; both outputs are made of it.
void fields(const Anchor& a, Json& out) {
  out["anchor_branches"] = a.branches;
  out["tsc"] = a.tsc;
  out["ticks_per_branch"] = static_cast<double>(a.ticks_per_branch_q32) / 4294967296.0;
  out["tsc_ceiling"] = a.tsc_ceiling;
}
void fields(const NetFrame& n, Json& out) {
  out["device"] = n.device;
  out["length"] = n.frame.size();
  out["crc"] = crc(n.frame);
  out["head"] = hex_bytes(n.frame, 14);
}
void fields(const DiskDone& d, Json& out) {
  out["device"] = d.device;
  out["request"] = d.request;
  out["outcome"] = name_of(d.outcome);
  if (d.outcome == DiskOutcome::kData) {
    out["length"] = d.data.size();
    out["crc"] = crc(d.data);
  }
  if (d.outcome == DiskOutcome::kReRead) {
    out["offset"] = d.offset;
    out["length"] = d.length;
    out["crc"] = fmt::format("{:08x}", d.data_crc);
  }
}
void fields(const Console& c, Json& out) {
  out["device"] = c.device;
  out["length"] = c.bytes.size();
  out["bytes"] = printable(c.bytes);
}
void fields(const Command& c, Json& out) {
  out["code"] = c.code;
  out["argument"] = c.argument;
}
void fields(const StateDigest& s, Json& out) {
  out["epoch"] = s.epoch;
  const auto digest = [&s](uint64_t value) { return fmt::format("{:0{}x}", value, s.width * 2); };
  out["registers"] = digest(s.registers);
  out["devices"] = digest(s.devices);
  if (s.memory) out["memory"] = digest(*s.memory);
}
void fields(const PtDigest& p, Json& out) {
  out["epoch"] = p.epoch;
  out["length"] = p.blob.size();
  out["blob"] = hex_bytes(p.blob, 32);
}
void fields(const Marker& m, Json& out) {
  out["kind"] = name_of(m.kind);
  out["id"] = m.id;
  out["text"] = printable(m.text);
}
void fields(const Section& s, Json& out) {
  out["name"] = s.name;
  out["offset"] = s.offset;
  out["length"] = s.data.size();
  out["total"] = s.total;
  out["crc"] = crc(s.data);
}
void fields(const End& e, Json& out) {
  out["reason"] = name_of(e.reason);
  out["final_digest"] = e.final_digest.hex();
  out["instructions"] = e.instructions;
  out["branches"] = e.branches;
  out["guest_ticks"] = e.guest_ticks;
  out["epochs"] = e.epochs;
  out["records"] = e.records;
  if (!e.text.empty()) out["text"] = printable(e.text);
}
void fields(const Unknown& u, Json& out) { out["length"] = u.body.size(); }

Json point_json(const Record& record) {
  Json out;
  out["branches"] = record.at.branches;
  out["rip"] = hex(record.at.rip);
  if (record.at.rcx) out["rcx"] = hex(*record.at.rcx);
  if (record.at.instructions != 0) out["instructions"] = record.at.instructions;
  if (record.at.tie) out["tie"] = fmt::format("{:08x}", *record.at.tie);
  return out;
}

Json body_json(const Record& record) {
  Json out = Json::object();
  std::visit([&out](const auto& body) { fields(body, out); }, record.body);
  return out;
}

void append_pairs(const Json& object, std::string& line) {
  for (const auto& [key, value] : object.items()) {
    line += fmt::format(" {}={}", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
}

}  // namespace

std::string record_text(const Record& record, LogPosition position) {
  std::string line = fmt::format("{:>10} {:<12}", position.value, type_name(type_of(record.body)));
  if (record.vcpu != 0) line += fmt::format(" vcpu={}", record.vcpu);
  if (!std::holds_alternative<Unknown>(record.body)) append_pairs(point_json(record), line);
  line += " |";
  append_pairs(body_json(record), line);
  return line;
}

std::string record_json(const Record& record, LogPosition position) {
  Json out;
  out["schema"] = "understudy.log.record.v1";
  out["log_position"] = position.value;
  out["type"] = type_name(type_of(record.body));
  out["vcpu"] = record.vcpu;
  if (!std::holds_alternative<Unknown>(record.body)) out["at"] = point_json(record);
  if (record.skippable) out["skippable"] = true;
  out.update(body_json(record));
  return out.dump();
}

}  // namespace us::log
