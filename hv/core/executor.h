// How the software processor executes guest code. Both ways do the same, bit for bit and count for
// count, so this is no part of a machine's identity: what one recorded the other replays.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace us::hv {

enum class Executor : uint8_t {
  kInterpret,  // decoded blocks run by handlers
  kTranslate,  // hot blocks become host code (hv/cpu/translate/)
};

const char* name_of(Executor executor);
std::optional<Executor> executor_named(std::string_view name);

// Whether this host leaves undefined flags as translated code relies on; if not, everything is
// interpreted.
bool host_fits_translation();

// What vCPUs made from now on really use. Before it is set: what the environment variable
// UNDERSTUDY_EXECUTOR names, so that every test can run either way, else translate.
Executor default_executor();
void set_default_executor(Executor executor);

// How often a block is interpreted before it is translated, for vCPUs made from now on. Tests set
// it to 1; in the environment it is UNDERSTUDY_TRANSLATE_AFTER.
uint32_t translate_after();
void set_translate_after(uint32_t runs);

}  // namespace us::hv
