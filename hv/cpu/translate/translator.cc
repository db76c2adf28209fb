#include "hv/cpu/translate/translator.h"

#include <fmt/format.h>
#include <utility>

#include "hv/cpu/handler.h"

namespace us::hv {
namespace {

// A page whose code keeps changing is left to the interpreter, unless everything is to be
// translated.
constexpr unsigned kMostWithdrawals = 8;

const Op* became_hot(Cpu& c, const Op* op) {
  Block* const block = block_of(op);
  static_cast<Translator*>(c.code->observer())->translate(*block);
  const Handler fn = block->translated ? &runtime::enter : block->first;
  US_TAIL return fn(c, op);
}

// First handler of a block that is not hot yet.
const Op* count_run(Cpu& c, const Op* op) {
  Block* const block = block_of(op);
  if (US_UNLIKELY(++block->heat >= c.translate_at)) US_TAIL return became_hot(c, op);
  US_TAIL return block->first(c, op);
}

bool translatable(const Block& block) {
  return block.mode.is64() && (block.mode.bits & Mode::kSingle) == 0;
}

}  // namespace

Translator::Translator(Cpu& cpu, uint32_t hot) : cpu_(cpu), unit_(cpu, memory_) {
  cpu.translate_at = hot;
  cpu.code->observe(this);
}

Translator::~Translator() { cpu_.code->observe(nullptr); }

void Translator::inserted(Block& block) {
  block.first = block.ops[0].fn;
  block.entry = unit_.entry_of_cold(block);
  if (translatable(block)) block.ops[0].fn = &count_run;
}

void Translator::translate(Block& block) {
  Page& page = pages_[block.phys & ~kPageMask];
  block.ops[0].fn = block.first;
  if (!unit_.has_room()) full_ = true;
  if (full_ || (page.withdrawals >= kMostWithdrawals && cpu_.translate_at > 1)) return;
  const size_t before = unit_.getSize();
  FinishedUnit unit;
  if (!unit_.translate(block, unit)) {
    ++counters_.refused;
    return;
  }
  ++counters_.units;
  counters_.blocks += unit.blocks.size();
  counters_.code_bytes += unit_.getSize() - before;
  block.translated = true;
  block.entry = unit.entry;
  block.ops[0].fn = &runtime::enter;
  page.units.push_back(std::move(unit));
}

// Jumps and links stay inside a page, so what may lead to a dropped block does too.
void Translator::withdraw(Page& page) {
  ++page.withdrawals;
  for (FinishedUnit& unit : page.units) {
    for (JumpSlot* slot : unit.slots) slot->code = slot->unlinked;
    Block& head = *unit.head;
    head.translated = false;
    head.entry = unit_.entry_of_cold(head);
    head.heat = 0;
    head.ops[0].fn = &count_run;
    ++counters_.withdrawn;
  }
  page.units.clear();
}

void Translator::dropping(Block& block) {
  const auto at = pages_.find(block.phys & ~kPageMask);
  if (at != pages_.end() && !at->second.units.empty()) withdraw(at->second);
}

void Translator::cleared() {
  pages_.clear();
  unit_.forget_all();
  full_ = false;
  ++counters_.clears;
}

std::string Translator::summary() const {
  return fmt::format(
      "translator: {} units of {} blocks, {} bytes; {} withdrawn, {} refused, {} times cleared",
      counters_.units, counters_.blocks, counters_.code_bytes, counters_.withdrawn,
      counters_.refused, counters_.clears);
}

}  // namespace us::hv
