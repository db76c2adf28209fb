// The arbiter for those who run etcd (3.4 or newer) anyway: generations are keys, a claim is one
// transaction that puts the key if neither it nor a later one exists. Spoken is etcd's JSON gateway
// over plain HTTP; where that is not private, put a TLS proxy beside it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay-engine/arbiter/arbiter.h"
#include "replay-engine/arbiter/http_post.h"

namespace us::replay {

// "//HOST:PORT[,HOST:PORT...]" or without the slashes; an IPv6 address in brackets. Nothing: not of
// that form, or more than 16.
std::optional<std::vector<HttpEndpoint>> parse_etcd_endpoints(std::string_view text);

// Endpoints are tried in turn, beginning with the one that answered last, each with its share of
// the timeout in `options`. Name resolution is not bounded by it. Precondition: usable names.
std::unique_ptr<Arbiter> make_etcd_arbiter(const std::vector<HttpEndpoint>& endpoints,
                                           const ArbiterOptions& options);

}  // namespace us::replay
