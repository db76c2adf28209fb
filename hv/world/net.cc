#include "hv/world/net.h"

#include <arpa/inet.h>
#include <charconv>
#include <fmt/format.h>
#include <optional>
#include <string_view>

namespace us::hv {

namespace {

class NoNet final : public NetBackend {
 public:
  void send(ByteSpan) override {}
  void stop() override {}
  uint64_t dropped() const override { return 0; }
};

constexpr const char* kForms =
    "none, slirp[:hostfwd=tcp:IP:PORT-[GUEST]:PORT], vde:PATH or tap:IFNAME";

UserError bad_option(const std::string& text, std::string seen) {
  return UserError{.id = "NET-002",
                   .what = fmt::format("network backend `{}` is not understood", text),
                   .seen = std::move(seen),
                   .needed = kForms,
                   .mend =
                       "correct the network's backend, e.g. "
                       "slirp:hostfwd=tcp:127.0.0.1:8080-:80"};
}

// Takes the text up to `separator` off the front; nothing when there is none.
std::optional<std::string_view> cut(std::string_view& text, char separator) {
  const size_t at = text.find(separator);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view head = text.substr(0, at);
  text.remove_prefix(at + 1);
  return head;
}

bool read_address(std::string_view text, in_addr& address) {
  address.s_addr = 0;
  return text.empty() || ::inet_pton(AF_INET, std::string(text).c_str(), &address) == 1;
}

bool read_port(std::string_view text, uint16_t& port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port != 0;
}

// tcp:127.0.0.1:8080-10.0.2.15:80
std::optional<HostForward> read_forward(std::string_view text) {
  HostForward forward;
  const auto protocol = cut(text, ':');
  const auto host_address = cut(text, ':');
  const auto host_port = cut(text, '-');
  const auto guest_address = cut(text, ':');
  if (!protocol || !host_address || !host_port || !guest_address) return std::nullopt;
  if (*protocol != "tcp" && *protocol != "udp") return std::nullopt;
  forward.udp = *protocol == "udp";
  const bool good = read_address(*host_address, forward.host_address) &&
                    read_port(*host_port, forward.host_port) &&
                    read_address(*guest_address, forward.guest_address) &&
                    read_port(text, forward.guest_port);
  return good ? std::optional(forward) : std::nullopt;
}

Result<NetSpec> read_slirp(const std::string& text, std::string_view options) {
  NetSpec spec{.kind = NetKind::kSlirp};
  constexpr std::string_view kKey = "hostfwd=";
  while (!options.empty()) {
    const std::string_view option = options.substr(0, options.find(','));
    options.remove_prefix(std::min(options.size(), option.size() + 1));
    const auto forward = option.starts_with(kKey) ? read_forward(option.substr(kKey.size()))
                                                  : std::optional<HostForward>();
    if (!forward) return bad_option(text, fmt::format("slirp option `{}`", option));
    spec.forwards.push_back(*forward);
  }
  return spec;
}

}  // namespace

Result<NetSpec> parse_net_spec(const std::string& text) {
  std::string_view rest = text;
  const auto head = cut(rest, ':');
  const std::string_view kind = head ? *head : std::string_view(text);
  const std::string_view options = head ? rest : std::string_view();
  if (kind == "none" && !head) return NetSpec{};
  if (kind == "slirp") {
    if (head && options.empty()) return bad_option(text, "no option after the colon");
    return read_slirp(text, options);
  }
  if (kind == "vde" || kind == "tap") {
    if (options.empty())
      return bad_option(text, kind == "vde" ? "no switch path" : "no interface name");
    return NetSpec{.kind = kind == "vde" ? NetKind::kVde : NetKind::kTap,
                   .target = std::string(options)};
  }
  return UserError{.id = "NET-001",
                   .what = fmt::format("there is no network backend `{}`", text),
                   .seen = fmt::format("`{}`", kind),
                   .needed = kForms,
                   .mend = "name one of these"};
}

Result<std::unique_ptr<NetBackend>> open_net(const NetSpec& spec, FrameHandler handler) {
  switch (spec.kind) {
    case NetKind::kNone: return std::unique_ptr<NetBackend>(std::make_unique<NoNet>());
    case NetKind::kSlirp: return open_slirp(spec, std::move(handler));
    case NetKind::kVde: return open_vde(spec, std::move(handler));
    case NetKind::kTap: return open_tap(spec, std::move(handler));
  }
  US_CHECK(false, "network kind {}", static_cast<int>(spec.kind));
}

}  // namespace us::hv
