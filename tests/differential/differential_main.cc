// The differential test: this host's own processor and the software processor run the same random
// instructions from the same state and must end alike. See README.md here.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <map>

#include "tests/differential/compare.h"
#include "tests/differential/native.h"
#include "tests/differential/soft.h"

namespace us::differential {
namespace {

constexpr uint64_t kShortForm = 400'000, kDefaultSeed = 20240917;
constexpr unsigned kReportsPerForm = 2, kReportsAtMost = 60;

struct Options {
  uint64_t seed = kDefaultSeed, tests = kShortForm;
  bool single = false, table = false;
  uint64_t number = 0;
  std::string form;
};

class Session {
 public:
  Session(const Options& options, Forms& forms)
      : options_(options), forms_(forms), generator_(forms, options.seed) {
    if (!options.form.empty()) generator_.only(options.form);
    counts_.resize(forms.all().size());
    unimplemented_.resize(forms.all().size());
  }

  // False: the host's child died.
  bool run_batch(uint64_t first);
  void print_table(bool whole) const;
  unsigned mismatches() const { return mismatches_; }
  // Tests that differed only by bytes which an earlier one may leave different.
  unsigned inherited() const { return inherited_; }
  unsigned empty_rows() const;
  std::string translator() const { return soft_.translator(); }

 private:
  void prepare(uint64_t first, unsigned bank);
  void run_soft(Bank& bank, unsigned from, unsigned to);
  void compare(unsigned i, unsigned bank);
  bool only_inherited(unsigned i, unsigned bank);
  void count(const Test& test, const Snapshot& end);
  void report(const Test& test, const Bank& bank, unsigned i, const std::string& text);
  void find_stray_stores(unsigned bank);
  bool memory_equal();
  void reset_memory();

  const Options& options_;
  const Forms& forms_;
  Generator generator_;
  Native native_;
  Soft soft_;
  std::vector<Test> tests_ = std::vector<Test>(kBatch);
  std::vector<Snapshot> results_ = std::vector<Snapshot>(kBatch);
  std::vector<uint8_t> missing_ = std::vector<uint8_t>(kBatch);
  std::vector<uint64_t> counts_;
  std::vector<bool> unimplemented_;
  std::map<std::string, unsigned> reported_;
  unsigned mismatches_ = 0, printed_ = 0, inherited_ = 0;
};

void Session::reset_memory() {
  Random r(options_.seed);
  for (unsigned i = 0; i < (kDataPages + 1) * kPage; i += 8) {
    const uint64_t v = r.next();
    std::memcpy(native_.data() + i, &v, 8);
  }
  for (unsigned i = 0; i < kStackPages * kPage; i += 8) {
    const uint64_t v = r.next();
    std::memcpy(native_.stack() + i, &v, 8);
  }
  soft_.set_memory(native_.data(), native_.stack());
}

void Session::prepare(uint64_t first, unsigned which) {
  Bank& bank = native_.bank(which);
  uint8_t* code = native_.code() + slot_address(which, 0) - kCodeBase;
  for (unsigned i = 0; i < kBatch; ++i) {
    generator_.make(first + i, tests_[i], bank.before[i]);
    std::memcpy(code + i * kSlotSize, tests_[i].code, kSlotSize);
  }
  soft_.load_code(which, code);
  reset_memory();
}

void Session::run_soft(Bank& bank, unsigned from, unsigned to) {
  for (unsigned i = from; i < to; ++i) {
    const uint64_t unknown = soft_.unknown_instructions();
    soft_.run(bank.before[i], results_[i], tests_[i].by_steps);
    missing_[i] = soft_.unknown_instructions() != unknown;
  }
}

bool Session::run_batch(uint64_t first) {
  const auto which = static_cast<unsigned>((first / kBatch) % kBanks);
  Bank& bank = native_.bank(which);
  prepare(first, which);
  bank.first = 0;
  bank.count = kBatch;
  native_.start(which);
  run_soft(bank, 0, kBatch);
  if (!native_.finish()) {
    const unsigned at = bank.current;
    fmt::print("The host's child died in test {}:\n{}", first + at,
               describe(tests_[at], bank.before[at]));
    return false;
  }
  const bool stray = !memory_equal();
  for (unsigned i = 0; i < kBatch; ++i) {
    if (!options_.single || options_.number == first + i) compare(i, which);
  }
  if (stray && !options_.single) find_stray_stores(which);
  return true;
}

// A step was executed if the test ended at or behind it: streams only go forwards.
void Session::count(const Test& test, const Snapshot& end) {
  for (unsigned i = 0; i < test.count; ++i) {
    if (i == 0 || end.rip >= test.slot + test.steps[i].offset)
      ++counts_[static_cast<unsigned>(test.steps[i].form)];
  }
}

void Session::report(const Test& test, const Bank& bank, unsigned i, const std::string& text) {
  ++mismatches_;
  const auto form = static_cast<unsigned>(test.steps[test.count - 1].form);
  if (reported_[forms_.all()[form].name]++ >= kReportsPerForm || printed_++ >= kReportsAtMost)
    return;
  fmt::print("MISMATCH {}{}  alone: --seed {} --only {}{}\n", describe(test, bank.before[i]), text,
             options_.seed, test.number,
             options_.form.empty() ? "" : fmt::format(" --form '{}'", options_.form));
}

// What ENTER leaves behind when it faults, reserved fields of XSAVE's area, and what a masked move
// stores that faults on one side only (see differences()), may lie there.
bool stray_stores_differ(const Test& test) {
  for (unsigned i = 0; i < test.count; ++i) {
    const ZydisMnemonic m = test.steps[i].in.mnemonic();
    if (m == ZYDIS_MNEMONIC_ENTER || m == ZYDIS_MNEMONIC_XSAVE || m == ZYDIS_MNEMONIC_XSAVE64 ||
        m == ZYDIS_MNEMONIC_FXSAVE || m == ZYDIS_MNEMONIC_FXSAVE64 || m == ZYDIS_MNEMONIC_FNSTENV ||
        m == ZYDIS_MNEMONIC_FNSAVE || m == ZYDIS_MNEMONIC_MASKMOVQ ||
        m == ZYDIS_MNEMONIC_MASKMOVDQU)
      return true;
  }
  return false;
}

// Whether test i differs only because it read what may differ of an earlier one's stray stores:
// alone, from memory as the batch found it, it does not.
bool Session::only_inherited(unsigned i, unsigned which) {
  if (std::none_of(tests_.begin(), tests_.begin() + i, stray_stores_differ)) return false;
  Bank& bank = native_.bank(which);
  reset_memory();
  bank.first = i;
  bank.count = i + 1;
  native_.start(which);
  run_soft(bank, i, i + 1);
  if (!native_.finish()) return false;
  Snapshot native = bank.after[i];
  if (!differences(tests_[i], bank.before[i], native, results_[i]).empty()) return false;
  ++inherited_;
  return true;
}

void Session::compare(unsigned i, unsigned which) {
  Bank& bank = native_.bank(which);
  const Test& test = tests_[i];
  if (test.count == 0) return;
  if (missing_[i]) {
    for (unsigned k = 0; k < test.count; ++k) {
      const Step& step = test.steps[k];
      if (results_[i].rip == test.slot + step.offset)
        unimplemented_[static_cast<unsigned>(step.form)] = true;
    }
    return;
  }
  count(test, bank.after[i]);
  Snapshot native = bank.after[i];
  bank.before[i].vector = bank.before[i].error = bank.before[i].cr2 = 0;
  const std::string text = differences(test, bank.before[i], native, results_[i]);
  if (!text.empty() && !only_inherited(i, which)) report(test, bank, i, text);
}

bool Session::memory_equal() {
  // The windows were compared test by test, with what may differ in mind.
  const auto copy_window = [](uint8_t* to, const uint8_t* from, uint64_t at, unsigned size) {
    std::memcpy(to + at, from + at, size);
  };
  copy_window(native_.data(), soft_.data(), kDataWindowAt - kDataBase, kDataWindow);
  copy_window(native_.stack(), soft_.stack(), kStackWindowAt - kStackBase, kStackWindow);
  return std::memcmp(native_.data(), soft_.data(), (kDataPages + 1) * kPage) == 0 &&
         std::memcmp(native_.stack(), soft_.stack(), kStackPages * kPage) == 0;
}

// The regions differ: runs the batch's tests one by one to find whose stores they are.
void Session::find_stray_stores(unsigned which) {
  Bank& bank = native_.bank(which);
  for (unsigned i = 0; i < kBatch; ++i) {
    if (missing_[i]) continue;
    reset_memory();
    bank.first = i;
    bank.count = i + 1;
    native_.start(which);
    run_soft(bank, i, i + 1);
    if (!native_.finish()) return;
    if (!memory_equal() && !stray_stores_differ(tests_[i]))
      report(tests_[i], bank, i, "  memory outside the windows\n");
  }
}

unsigned Session::empty_rows() const {
  unsigned empty = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] != 0 || unimplemented_[i]) continue;
    fmt::print("EMPTY {}\n", forms_.all()[i].name);
    ++empty;
  }
  return empty;
}

void Session::print_table(bool whole) const {
  struct Row {
    uint64_t forms = 0, least = ~0ull, total = 0, missing = 0;
  };
  std::map<std::string, Row> rows;
  for (size_t i = 0; i < counts_.size(); ++i) {
    const Form& form = forms_.all()[i];
    Row& row = rows[whole ? form.name : ZydisMnemonicGetString(form.mnemonic)];
    ++row.forms;
    row.total += counts_[i];
    if (unimplemented_[i])
      ++row.missing;
    else
      row.least = std::min(row.least, counts_[i]);
  }
  fmt::print("{:28} {:>6} {:>10} {:>10}\n", whole ? "form" : "instruction", "forms", "runs",
             "least");
  for (const auto& [name, row] : rows) {
    if (row.missing == row.forms) {
      fmt::print("{:28} {:>6} not implemented: #UD\n", name, row.forms);
    } else {
      fmt::print("{:28} {:>6} {:>10} {:>10}{}\n", name, row.forms, row.total, row.least,
                 row.missing != 0 ? fmt::format("  {} forms not implemented", row.missing) : "");
    }
  }
}

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--table") {
      options.table = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* value = argv[++i];
    if (name == "--seed")
      options.seed = std::strtoull(value, nullptr, 0);
    else if (name == "--tests")
      options.tests = std::strtoull(value, nullptr, 0);
    else if (name == "--form")
      options.form = value;
    else if (name == "--only")
      options.single = true, options.number = std::strtoull(value, nullptr, 0);
    else
      return false;
  }
  return true;
}

int run(const Options& options) {
  Forms forms;
  Session session(options, forms);
  const auto start = std::chrono::steady_clock::now();
  uint64_t from = 0, to = options.tests;
  if (options.single) {
    from = options.number / kBatch * kBatch;
    to = from + 1;
  }
  for (uint64_t first = from; first < to; first += kBatch) {
    if (!session.run_batch(first)) return 1;
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (options.single) return session.mismatches() != 0;
  session.print_table(options.table);
  const unsigned empty = options.form.empty() ? session.empty_rows() : 0;
  fmt::print(
      "seed {}: {} tests of {} forms in {:.1f} s, {} mismatches, {} empty rows; {} differed only "
      "by "
      "undefined bytes of an earlier test\n",
      options.seed, options.tests, forms.all().size(), seconds.count(), session.mismatches(), empty,
      session.inherited());
  if (const std::string text = session.translator(); !text.empty()) fmt::print("{}\n", text);
  return session.mismatches() != 0 || empty != 0;
}

}  // namespace
}  // namespace us::differential

int main(int argc, char** argv) {
  us::differential::Options options;
  if (!us::differential::parse(argc, argv, options)) {
    fmt::print(
        "usage: differential [--tests N] [--seed S] [--only TEST] [--form TEXT] [--table]\n");
    return 2;
  }
  return us::differential::run(options);
}
